"""Light the stage of the afternoon until Ctrl-C, or take the pictures of docs/dashboard/ and end."""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
from pathlib import Path

#: User of the dashboard in the pictures.
NAME, PASSWORD = "maria", "correct horse battery"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="of the dashboard; a free one without it")
    parser.add_argument("--pictures", type=Path, help="folder that the pictures are written to; then it ends")
    parser.add_argument("--only", nargs="*", default=(), help="names of the pictures that are taken")
    options = parser.parse_args()

    from benchmarks.afternoon.pictures import take
    from benchmarks.afternoon.stage import stage
    from postbacks.web.security import passwords, users

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="afternoon-") as folder:
        path = Path(folder, "users") if options.pictures else None
        if path:
            users.write(path, NAME, "admin", passwords.hashed(PASSWORD))
        try:
            with stage(Path(folder), port=options.port, users=path) as made:
                if options.pictures:
                    for picture in take(made, options.pictures, {NAME: PASSWORD}, options.only):
                        print(f"{picture}: {picture.stat().st_size / 1000:.0f} KB")
                    return
                print(json.dumps(made.facts, indent=2))
                print(f"\n  {made.url}\n\nCtrl-C ends it. For commands:\n")
                for name, value in made.env.items():
                    print(f"export {name}={value}")
                signal.pause()
        except KeyboardInterrupt:
            print("The stage is dark.")


if __name__ == "__main__":
    main()

"""Staged afternoon of a telecom platform with 200 accounts, and the pictures of the dashboard that are taken of it.

``python -m benchmarks.afternoon`` runs it until Ctrl-C and prints where its dashboard is; ``make screenshots`` takes the pictures
of docs/dashboard/ and ends. What happens now is real: broker, workers, beats, recorder, receivers with TLS. What happened
before is written by the recorder's own writer, and what fails since an hour is sent now and then dated back. Names of receivers end
in ``.example`` and lead to loopback; numbers are of those that are reserved for fiction (555-0100 to 555-0199). The same seed
makes the same names, texts and numbers.
"""

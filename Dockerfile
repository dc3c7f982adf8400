# One image for worker, beat, history, dashboard, Flower and metrics. Build: docker compose build, or docker build -t postbacks .
ARG PYTHON=3.13

# -- what is installed, from wheels alone: no compiler is needed, here or below --------------------
FROM python:${PYTHON}-slim AS build
COPY pyproject.toml README.md LICENSE /src/
COPY postbacks /src/postbacks
# Without pip of its own: what runs has no way to install anything.
RUN ["python", "-m", "venv", "--without-pip", "/opt/postbacks"]
RUN ["pip", "--python", "/opt/postbacks/bin/python", "install", "--no-cache-dir", "--only-binary", ":all:", "/src[flower,history,postgres,web]"]

# -- what runs -------------------------------------------------------------------------------------
FROM python:${PYTHON}-slim
# A fixed number, so that volumes and policies can name it. No home, no shell.
RUN ["useradd", "--uid", "10001", "--user-group", "--no-create-home", "--home-dir", "/tmp", "--shell", "/usr/sbin/nologin", "postbacks"]
COPY --from=build /opt/postbacks /opt/postbacks
# The deployment's Celery configuration is read from the working directory; mount another over it.
COPY celeryconfig.py flowerconfig.py /srv/postbacks/
# Logs leave at once. Nothing is written but to /tmp, so the root file system may be read-only.
ENV PATH=/opt/postbacks/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv/postbacks
USER 10001:10001
# A worker that is told to stop finishes what is open: give it 30 s (docker stop --time 30).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["postbacks", "health"]
# The worker; beat, history, dashboard, Flower and metrics are other commands of the same image (docker-compose.yml).
CMD ["celery", "-A", "postbacks", "worker", "--loglevel=INFO", "--hostname=worker@%h", "--without-mingle", "--without-gossip"]

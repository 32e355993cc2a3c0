# One image for workers, the web process, set-up and the command line.
FROM python:3.11.14-slim-bookworm

WORKDIR /build
COPY pyproject.toml constraints.txt README.md ./
COPY tallystick tallystick
COPY workflows workflows
COPY activities activities
COPY workers workers
RUN pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt '.[otel]'

RUN useradd --create-home --uid 10001 tallystick
USER tallystick
WORKDIR /home/tallystick
ENV PYTHONUNBUFFERED=1

ENTRYPOINT ["tallystick"]
CMD ["worker"]

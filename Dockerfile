# AFTER for Label Studio: one image, two commands. The web process is the default; the worker is
# `python -m backend worker`. docker-compose.yml runs both beside a Label Studio.
#
#   docker build -t after .
#
# Which PyTorch: TORCH is what pip is asked for, TORCH_INDEX an index to look in besides pip's own.
# Without them pip's index decides, which on x86-64 Linux usually means CUDA and some GB. For the CPU,
# or for one CUDA, take the index address from PyTorch's page of installation commands:
#
#   docker build -t after      --build-arg TORCH=torch==2.13.0+cpu   --build-arg TORCH_INDEX=ADDRESS .
#   docker build -t after:cuda --build-arg TORCH=torch==2.13.0+cu130 --build-arg TORCH_INDEX=ADDRESS .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}

ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=

ENV PATH=/opt/after/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TOKENIZERS_PARALLELISM=false

RUN python3 -m venv /opt/after \
    && useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin after \
    && mkdir /data /app \
    && chown after /data

WORKDIR /app

# What changes least comes first: PyTorch, then the other packages, then the program.
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$TORCH"

# torchaudio's compiled part wants CUDA's libraries; without it, its Python part works.
COPY requirements.txt requirements-nodeps.txt ./
RUN grep -v '^torch==' requirements.txt > /tmp/requirements.txt \
    && pip install --no-cache-dir "$TORCH" -r /tmp/requirements.txt \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
    && pip install --no-cache-dir --no-deps -r requirements-nodeps.txt \
    && { python -c "import torchaudio" 2>/dev/null \
        || rm -f /opt/after/lib/python3*/site-packages/torchaudio/lib/*.so; } \
    && python -c "import torchaudio, label_studio_ml.model" \
    && rm /tmp/requirements.txt

COPY after_model after_model
COPY backend backend

# The image listens for others, so it starts only with AFTER_BASIC_AUTH_USER and _PASS, or with
# AFTER_ALLOW_UNAUTHENTICATED=true where something else keeps strangers out.
ENV AFTER_DATA=/data \
    AFTER_HOST=0.0.0.0 \
    AFTER_PORT=9090 \
    HOME=/data

USER after
VOLUME /data
EXPOSE 9090

HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"AFTER_PORT\"]}/health', timeout=4)"]

# gunicorn, with the address, threads and limits of the settings (backend/web/serving.py).
CMD ["python", "-m", "backend", "serve"]

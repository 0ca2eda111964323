# The service as an image: Python, the package, and nothing that builds, fetches or shells out for it.
#
#   docker build --build-arg REVISION=$(git rev-parse HEAD) -t tenant-authz:0.2.0 .
#   docker build --build-arg BASE=registry.example/python@sha256:... -t tenant-authz:0.2.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 --push -t registry.example/tenant-authz:0.2.0 .
#
# What it installs is locked with hashes in deploy/image, the same for both architectures. BASE needs
# python3, 3.11 or newer, with its standard library; pip or Debian's venv it does not need if there is
# a directory `wheelhouse`, made where an index can be reached, by the base's Python:
#
#   pip download --only-binary :all: --dest wheelhouse -r deploy/image/requirements.txt \
#       -r deploy/image/build-requirements.txt
#   pip download --dest wheelhouse pip
#
# Then the build asks no index. Nothing here needs BuildKit.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /build
COPY . .
# grpcio, of which the reference transport is made, is left out: 19 MB that no server needs. So are the
# lexers of Pygments, by which Rich would color the code of five hundred languages.
RUN set -eu; \
    python3 -m venv --without-pip /opt/tenant-authz; \
    python3 -m venv --without-pip /opt/building; \
    pip="python3 -m pip"; from=""; \
    if [ -d wheelhouse ]; then \
        pip="python3 $(echo wheelhouse/pip-*.whl)/pip"; from="--no-index --find-links wheelhouse"; \
    fi; \
    install="install --no-cache-dir --disable-pip-version-check --no-deps"; \
    locked="$install --require-hashes --only-binary :all: $from"; \
    $pip --python /opt/building $locked -r deploy/image/build-requirements.txt; \
    $pip --python /opt/tenant-authz $locked -r deploy/image/requirements.txt; \
    /opt/building/bin/python -m hatchling build -t wheel -d /opt/wheel; \
    $pip --python /opt/tenant-authz $install --no-index /opt/wheel/*.whl; \
    find /opt/tenant-authz -name '*.whl' -delete; \
    find /opt/tenant-authz -path '*/pygments/lexers/*' -name '[a-z]*.py*' -delete; \
    find /opt/tenant-authz -path '*/pygments/lexers/__pycache__/[a-z]*' -delete

FROM ${BASE}
ARG BASE=python:3.13-slim
ARG VERSION=0.2.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE=https://git.example/tenant-authz
LABEL org.opencontainers.image.title="tenant-authz" \
      org.opencontainers.image.description="Keeps tenants apart on a shared Knative + Istio cluster" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.authors="the maintainers of tenant-authz" \
      org.opencontainers.image.vendor="tenant-authz" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.url="${SOURCE}" \
      org.opencontainers.image.documentation="${SOURCE}/blob/v${VERSION}/deploy/README.md" \
      org.opencontainers.image.ref.name="${VERSION}" \
      org.opencontainers.image.base.name="${BASE}"
# Whoever takes the process over finds no installer and nothing that is setuid. The folder is for the
# default key store.
RUN set -eu; \
    if python3 -m pip --version >/dev/null 2>&1; then \
        python3 -m pip uninstall --yes --no-cache-dir --root-user-action=ignore pip >/dev/null; \
    fi; \
    mkdir -p /var/lib/tenant-authz; \
    chown 65532:65532 /var/lib/tenant-authz; \
    chmod 0700 /var/lib/tenant-authz; \
    find / -xdev -type f -perm /6000 -exec chmod ug-s {} +
# No setting of ours is here, for the environment would win over the settings file.
ENV PATH=/opt/tenant-authz/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, so that Kubernetes can see that it is not root's. Any other number will do as well.
USER 65532:65532
EXPOSE 9000 9001
STOPSIGNAL SIGTERM
# Kubernetes has probes of its own. A server whose http_listen is set in a file needs it here, too.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python3", "-c", "import http.client, os, sys\nhost, _, port = os.environ.get('AUTHZ_HTTP_LISTEN', '127.0.0.1:9001').rpartition(':')\nside = http.client.HTTPConnection(host.strip('[]*') or 'localhost', int(port), timeout=3)\nside.request('GET', '/readyz')\nsys.exit(side.getresponse().status != 200)"]
ENTRYPOINT ["authz"]
CMD ["serve"]
COPY --from=build /opt/tenant-authz /opt/tenant-authz

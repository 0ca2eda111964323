# The service as an image: Python, the package, and nothing that builds, fetches or shells out for it.
#
#   docker build -t tenant-authz:0.2.0 .
#   docker build --build-arg BASE=registry.example/python@sha256:... -t tenant-authz:0.2.0 .
#
# BASE needs glibc (on musl, as in Alpine, protobuf has no compiled parser, and a Check costs some ten
# times as much; the server warns of it) and python3, 3.11 or newer, with its standard library; pip or Debian's venv it does not need
# if there is a directory `wheelhouse`, made where an index can be reached:
#
#   pip wheel --wheel-dir wheelhouse '.[kubernetes]' 'hatchling>=1.27' pip
#
# Then the build asks no index. Nothing here needs BuildKit.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /build
COPY . .
RUN set -eu; \
    python3 -m venv --without-pip /opt/tenant-authz; \
    pip="python3 -m pip"; from=""; \
    if [ -d wheelhouse ]; then \
        pip="python3 $(echo wheelhouse/pip-*.whl)/pip"; from="--no-index --find-links wheelhouse"; \
    fi; \
    $pip --python /opt/tenant-authz install --no-cache-dir --disable-pip-version-check $from '.[kubernetes]'; \
    find /opt/tenant-authz -name '*.whl' -delete

FROM ${BASE}
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tenant-authz" \
      org.opencontainers.image.description="Keeps tenants apart on a shared Knative + Istio cluster" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
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

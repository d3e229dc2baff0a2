# One image for every role: the same code serves a laptop and a cluster.
FROM python:3.11-slim AS build
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir --prefix=/install -c constraints.txt '.[postgres]'

FROM python:3.11-slim
COPY --from=build /install /usr/local
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin mooring \
    && install -d -o mooring -g mooring -m 0700 /data
USER mooring
WORKDIR /data
VOLUME /data
# Inside a container the listeners must be reachable from outside it; what is published is compose's decision.
ENV MOORING_DATA_DIR=/data \
    MOORING_BROKER__HOST=0.0.0.0 \
    MOORING_DEVICE_HTTP__HOST=0.0.0.0 \
    MOORING_WEB__HOST=0.0.0.0
EXPOSE 1883 8080 8081 8083
HEALTHCHECK --interval=15s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/readyz', timeout=2)"]
ENTRYPOINT ["mooring"]
CMD ["serve"]

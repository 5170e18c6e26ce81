# The relay, and `cresset` to ask it. From the top of the repository:
#   docker build -f deploy/images/relay.Dockerfile -t cresset-relay .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN ./xtask/setup.sh build && cargo build --release --locked --bin cresset-relay --bin cresset

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libelf1 libssl3 zlib1g && rm -rf /var/lib/apt/lists/* \
    && useradd --system --home-dir /var/lib/cresset --create-home cresset && chmod 0700 /var/lib/cresset \
    && install -d -o cresset -m 0700 /run/cresset
COPY --from=build /src/target/release/cresset-relay /src/target/release/cresset /usr/bin/
USER cresset
VOLUME /var/lib/cresset
EXPOSE 32767 9481 9480
# SIGTERM drains, SIGHUP takes up changed settings.
HEALTHCHECK --start-period=30s CMD ["cresset", "status", "--relay", "127.0.0.1:32767"]
ENTRYPOINT ["cresset-relay", "--config", "/etc/cresset/cresset.yaml"]

# Countersign's image: built in one stage, run from another that has the binary and little else.
#
#   docker build -t countersign .
#
# Other base images: --build-arg BUILDER=… (Rust 1.95 or newer, a C compiler, CA certificates) and --build-arg RUNTIME=… (glibc).
# checkov:skip=CKV_DOCKER_7:The tags stand in these two arguments, which checkov does not follow into FROM.
ARG BUILDER=rust:1.95-bookworm
ARG RUNTIME=debian:bookworm-slim

# Keys and certificates of the local mesh (docker-compose.yml). Not part of the image that serves.
FROM ${RUNTIME} AS certs
# A volume takes the owner of the folder that it covers: each workload's is its user's, and no one is root.
RUN { command -v openssl >/dev/null || { apt-get update && apt-get install -y --no-install-recommends openssl && rm -rf /var/lib/apt/lists/*; }; } \
  && for who in edge orders inventory; do install -d -o 65532 -g 65532 -m 0700 "/certs/$who"; done
COPY deploy/compose/certs.sh /usr/local/bin/certs
USER 65532:65532
HEALTHCHECK NONE
ENTRYPOINT ["/bin/bash", "/usr/local/bin/certs"]

FROM ${BUILDER} AS builder
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin countersign && install -D target/release/countersign /out/countersign

FROM ${RUNTIME} AS countersign
# Its state (the admin token of a first start, a file store, keys of the demo issuer): its user has no home. Put a volume
# there to keep it. Commands by hand (`docker exec … countersign revoke`) look there as well.
ENV XDG_STATE_HOME=/var/lib
RUN install -d -o 65532 -g 65532 -m 0700 /var/lib/countersign
COPY --from=builder /out/countersign /usr/local/bin/countersign
# The slim base has none, and without them no https issuer and no rediss:// can be reached.
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
EXPOSE 9191 9193
# Bash's own sockets: the image has no curl, and needs none.
HEALTHCHECK --interval=5s --timeout=2s --start-period=10s \
  CMD ["/bin/bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9193 && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
ENTRYPOINT ["/usr/local/bin/countersign"]
CMD ["serve", "--config", "/etc/countersign/countersign.yaml"]

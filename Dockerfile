# syntax=docker/dockerfile:1
# The broker as a small image: no shell, no emulator, not root. For both architectures:
#
#   docker buildx build --platform linux/amd64,linux/arm64 --tag upload-broker .
#
# Each architecture is built by its own compiler: natively, or under emulation, which is slow.

FROM rust:1.95-bookworm AS build
WORKDIR /build

# Dependencies in layers of their own: they are fetched and built anew only when the manifest or the lock file changes.
COPY Cargo.toml Cargo.lock ./
# Stand-ins for what the manifest names, which cargo wants to see.
RUN mkdir -p src benches/load \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs benches/hot_path.rs benches/live.rs benches/load/main.rs \
    && cargo fetch --locked
# From here on nothing is fetched.
ENV CARGO_NET_OFFLINE=true
RUN cargo build --locked --profile dist --no-default-features --bin upload-broker \
    && rm -r src

COPY ARCHITECTURE.md ./
COPY src src
# What was built from the stand-ins above may be newer than the sources, which cargo tells apart by time alone.
RUN touch src/main.rs src/lib.rs \
    && cargo build --locked --profile dist --no-default-features --bin upload-broker

# glibc, CA certificates, time zones and a user that is nobody; nothing else.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="upload-broker" \
      org.opencontainers.image.description="Regional upload-session broker for Google Cloud Storage" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /build/target/dist/upload-broker /usr/local/bin/upload-broker
USER 65532:65532
EXPOSE 8443 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s CMD ["upload-broker", "healthcheck"]
ENTRYPOINT ["upload-broker"]
CMD ["serve", "--config", "/etc/upload-broker/config.toml"]

# The broker as a small image: no shell, no emulator, not root.
#
#   docker build --tag upload-broker .

FROM rust:1.95-bookworm AS build
WORKDIR /build

# Dependencies in a layer of their own: it is rebuilt only when the manifest or the lock file changes.
COPY Cargo.toml Cargo.lock ./
# Named by the manifest, so cargo wants to see them.
COPY benches benches
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --locked --profile dist --no-default-features --bin upload-broker \
    && rm -r src

COPY . .
# What was built from the stand-ins above may be newer than the sources, which cargo tells apart by time alone.
RUN touch src/main.rs src/lib.rs \
    && cargo build --locked --profile dist --no-default-features --bin upload-broker

# glibc, CA certificates, time zones and a user that is nobody; nothing else.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/dist/upload-broker /usr/local/bin/upload-broker
USER 65532:65532
EXPOSE 8443 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s CMD ["upload-broker", "healthcheck"]
ENTRYPOINT ["upload-broker"]
CMD ["serve", "--config", "/etc/upload-broker/config.toml"]

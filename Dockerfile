# Images of both services and of a small model to try them with: one target each.
#
#   docker build --target registry -t switchboard-registry .
#   docker build --target router -t switchboard-router .
#   docker build --target model -t switchboard-model .
#
# The image of a service contains one program, without a shell or a package manager. It runs as uid 65532 and writes
# nothing except the registry's database, so it works with a read-only root file system and without capabilities.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --workspace --bins && mkdir /state

FROM gcr.io/distroless/cc-debian12:nonroot AS registry
COPY --from=build /src/target/release/switchboard-registry /usr/local/bin/switchboard-registry
# A new volume takes the owner and the permissions of the folder over which it is mounted.
COPY --from=build --chown=65532:65532 /state /var/lib/switchboard
USER 65532:65532
WORKDIR /var/lib/switchboard
VOLUME /var/lib/switchboard
EXPOSE 50051 9051
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["switchboard-registry", "health"]
ENTRYPOINT ["switchboard-registry"]
CMD ["serve"]

FROM gcr.io/distroless/cc-debian12:nonroot AS router
COPY --from=build /src/target/release/switchboard-router /usr/local/bin/switchboard-router
USER 65532:65532
EXPOSE 50052 9052
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["switchboard-router", "health"]
ENTRYPOINT ["switchboard-router"]
CMD ["serve"]

# llama.cpp's server with SmolLM2-135M: for a first answer, not for real work.
FROM python:3.11-slim-bookworm AS model
COPY examples/model_server.py /opt/model_server.py
RUN python3 /opt/model_server.py --folder /opt/model --install-only
USER 65532:65532
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["python3", "/opt/model_server.py", "--folder", "/opt/model"]
CMD ["--host", "0.0.0.0", "--port", "8000"]

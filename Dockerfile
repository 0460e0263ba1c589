# One image for every role: docker run outrider <broker|collector|proxy|check|events> --config FILE
#
# Tags, not digests: this repository has no way to look digests up when it is changed. Whoever publishes an image pins both FROM
# lines to the digests they have verified (distroless images are signed with cosign).

# Node 24 is the LTS line that the tests run on. A base that falls below the floor in bin/node-floor.cjs refuses to start.
FROM node:24-trixie-slim AS build
WORKDIR /build
COPY package.json package-lock.json ./
# No package needs an install script here: this image is Node 24 already, and esbuild finds its binary without.
RUN ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
COPY . .
# By its absolute path: this image's Node, whatever a package puts on PATH.
RUN ["/usr/local/bin/node", "scripts/build.ts"]

# docker build --target steer: the image of the init container that lays the rules of transparent mode, and the only one that holds
# iptables. It needs NET_ADMIN and runs for a moment; the proxy itself needs neither.
FROM node:24-trixie-slim AS steer
RUN ["apt-get", "update"]
RUN ["apt-get", "install", "-y", "--no-install-recommends", "iptables"]
COPY --from=build --chown=0:0 /build/dist /outrider
ENTRYPOINT ["/usr/local/bin/node", "--disable-sigusr1", "--disallow-code-generation-from-strings", "/outrider/main.js", "steer"]
CMD ["--help"]

# No shell, no package manager.
FROM gcr.io/distroless/nodejs24-debian13:nonroot
LABEL org.opencontainers.image.title="Outrider" \
      org.opencontainers.image.description="Workload identity and short-lived credentials for unmodified programs" \
      org.opencontainers.image.licenses="Apache-2.0"
# Owned by root: the process cannot change its own code. It writes only where a configuration says so (stateDir, bundleFile,
# store.file, interception.bundleFile): mount volumes there and the root file system can be read-only.
COPY --from=build --chown=0:0 /build/dist /outrider
# As a number, so that Kubernetes' runAsNonRoot can tell.
USER 65532:65532
# The ports of config/examples; nothing listens that a configuration does not name.
EXPOSE 15001 15002 15003 15004 15005 15006 15007
# Node sizes itself by the machine, and a sidecar is not alone there. A small young generation, since its garbage is short-lived; a heap that
# grows late because it may not grow far (a broker of 10,000 targets needs half of this); one thread for compiling and collecting
# instead of four (0 would let Node choose by the machine): on a share of a core they only take turns with requests. BENCHMARKS.md has what that gives.
ENTRYPOINT ["/nodejs/bin/node", "--disable-sigusr1", "--max-semi-space-size=8", "--max-old-space-size=512", "--v8-pool-size=1", "--disallow-code-generation-from-strings", "/outrider/main.js"]
# Buffers and TLS come from malloc: one arena, and what is free goes back to the system.
ENV MALLOC_ARENA_MAX=1
ENV MALLOC_TRIM_THRESHOLD_=131072
CMD ["--help"]

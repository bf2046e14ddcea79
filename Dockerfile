# DWCP's agent and control worker. Built with a compiler (zstd's binding comes as source), run without one.
# Which ones: deploy/images.env, by digest once tools/pin-images.mjs has run.
ARG NODE_BUILD_IMAGE=node:24-bookworm
ARG NODE_IMAGE=node:24-bookworm-slim
FROM ${NODE_BUILD_IMAGE} AS build
WORKDIR /opt/dwcp
COPY package.json package-lock.json .npmrc ./
# Headers beside this Node: nothing is downloaded for compiling.
ENV npm_config_nodedir=/usr/local
RUN npm ci --no-audit --no-fund
COPY . .
RUN npm run build && npm prune --omit=dev

FROM ${NODE_IMAGE}
ENV NODE_ENV=production
WORKDIR /opt/dwcp
RUN groupadd --system --gid 10001 dwcp && useradd --system --uid 10001 --gid dwcp dwcp \
  && mkdir -p /var/lib/dwcp && chown dwcp:dwcp /var/lib/dwcp
COPY --from=build /opt/dwcp/package.json ./
COPY --from=build /opt/dwcp/bin bin
COPY --from=build /opt/dwcp/deploy/healthy.mjs /opt/dwcp/deploy/serve-jwks.mjs /opt/dwcp/deploy/ui-door.mjs deploy/
COPY --from=build /opt/dwcp/node_modules node_modules
COPY --from=build /opt/dwcp/dist dist
USER dwcp
VOLUME /var/lib/dwcp
EXPOSE 9876 9464
ENTRYPOINT ["node", "/opt/dwcp/bin/dwcp.mjs"]
CMD ["--help"]

/** The health check of the containers: is the process taking work? */
const port = process.env.DWCP_METRICS_PORT ?? '9464';
const answer = await fetch(`http://127.0.0.1:${port}/healthz`).catch(() => undefined);
process.exitCode = answer?.ok ? 0 : 1;

// A hook for Fastify.

import { PROBLEM, charger, problem } from "./web.js";

export { keyOf } from "./web.js";

/**
 * @typedef {any} Request
 * @typedef {any} Reply
 *
 * `refuse` answers a refused request. It may set another status, and returns the body; the headers are there already.
 * @typedef {import("./web.js").Rule<Request> & {
 *   refuse?: (request: Request, reply: Reply, answer: import("./answer.js").Answer) => unknown,
 * }} Rule
 */

/**
 * Admits requests by a rule, and tells the client what is left, as a hook for all routes or for one:
 *
 *     fastify.addHook("onRequest", rateLimit(limiter, { limits: "100/minute" }));
 *     fastify.get("/report", { onRequest: rateLimit(limiter, { name: "report", limits: "2/minute" }) }, handler);
 *
 * Where `by`, `limits` or `cost` read the body, take `preHandler`. The client's address is `request.ip`: set `trustProxy` behind
 * a proxy. A mistake, such as a wrong limit, is an error of the route.
 * @param {import("./limiter.js").Limiter} limiter
 * @param {Rule} rule
 */
export function rateLimit(limiter, rule) {
  const charge = charger(limiter, rule);
  const refuse = rule.refuse ?? usual;

  /** @param {Request} request @param {Reply} reply @param {import("./answer.js").Answer} answer */
  function usual(request, reply, answer) {
    const body = problem(rule.name ?? "default", answer);
    reply.code(body.status).type(PROBLEM);
    return JSON.stringify(body);
  }

  /** @param {Request} request @param {Reply} reply */
  return async (request, reply) => {
    const charged = await charge(request, request.ip);
    if (charged === null) return;
    const { answer, headers, settle } = charged;
    for (const [name, value] of Object.entries(headers)) {
      // Of another limit of this request there may be some already.
      const known = name.startsWith("RateLimit") ? reply.getHeader(name) : undefined;
      reply.header(name, known === undefined ? value : `${known}, ${value}`);
    }
    if (!answer.allowed) {
      reply.code(429);
      return reply.send(await refuse(request, reply, answer));
    }
    if (settle) reply.raw.once("close", () => settle(reply.raw.statusCode));
  };
}

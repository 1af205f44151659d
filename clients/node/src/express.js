// Middleware for Express.

import { PROBLEM, charger, problem } from "./web.js";

export { keyOf } from "./web.js";

/**
 * @typedef {any} Request
 * @typedef {any} Response
 *
 * `refuse` answers a refused request. It may set another status and body; the headers are there already.
 * @typedef {import("./web.js").Rule<Request> & {
 *   refuse?: (request: Request, response: Response, answer: import("./answer.js").Answer) => unknown,
 * }} Rule
 */

/**
 * Admits requests by a rule, and tells the client what is left. The answer is in `response.locals.rateLimit`.
 *
 *     app.use(rateLimit(limiter, { limits: "100/minute" }));
 *
 * The client's address is `request.ip`: set "trust proxy" behind a proxy. A mistake, such as a wrong limit, goes to `next`.
 * @param {import("./limiter.js").Limiter} limiter
 * @param {Rule} rule
 */
export function rateLimit(limiter, rule) {
  const charge = charger(limiter, rule);
  const refuse = rule.refuse ?? usual;

  /** @param {Request} request @param {Response} response @param {import("./answer.js").Answer} answer */
  function usual(request, response, answer) {
    const body = problem(rule.name ?? "default", answer);
    response.status(body.status).type(PROBLEM).send(JSON.stringify(body));
  }

  /** @param {Request} request @param {Response} response @param {(error?: unknown) => void} next */
  return async (request, response, next) => {
    try {
      const charged = await charge(request, request.ip);
      if (charged !== null) {
        const { answer, headers, settle } = charged;
        response.locals.rateLimit = answer;
        // Of another limit of this request there may be some already.
        for (const [name, value] of Object.entries(headers)) {
          if (name.startsWith("RateLimit")) response.append(name, value);
          else response.set(name, value);
        }
        if (!answer.allowed) return void (await refuse(request, response, answer));
        if (settle) response.once("close", () => settle(response.statusCode));
      }
    } catch (error) {
      return next(error);
    }
    next();
  };
}

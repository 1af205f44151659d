// What a limiter must answer, by brute force over a list of hits. It shares no code with the package.

const live = (hits, now, window) => hits.filter(([time]) => time + window > now);
const used = (hits, now, window) => live(hits, now, window).reduce((sum, [, cost]) => sum + cost, 0);
const fits = (hits, now, [limit, window], cost) => used(hits, now, window) + cost <= limit;

/** The first moment at which a hit fits, if nothing else happens. */
function fitsFrom(hits, now, tier, cost) {
  const moments = [now, ...hits.map(([time]) => time + tier[1])].filter((at) => at >= now).sort((a, b) => a - b);
  return moments.find((at) => fits(hits, at, tier, cost));
}

/**
 * The rows of all tiers of all keys. `questions` are `{ hits, tiers, cost }`; `hits` are changed by what is stored.
 * The binding row of each key comes first.
 */
export function ask(now, questions, { mode = "", reads = false } = {}) {
  const room = questions.map(({ hits, tiers, cost }) => cost === 0 || tiers.every((tier) => fits(hits, now, tier, cost)));
  const allowed = room.every(Boolean);
  return questions.map(({ hits, tiers, cost }, at) => {
    const refused = !allowed && !room[at];
    const possible = tiers.every(([limit]) => cost <= limit);
    const stored = cost > 0 && (allowed || mode === "FORCE" || (mode === "STRICT" && refused && possible));
    const after = stored ? [...hits, [now, cost]] : hits;
    if (stored && !reads) hits.push([now, cost]);
    const rows = tiers.map((tier) => {
      const [limit, window] = tier;
      const times = live(after, now, window).map(([time]) => time + window - now);
      let retry = 0;
      if (refused && cost > limit) retry = null;
      else if (refused && !fits(after, now, tier, cost)) retry = fitsFrom(after, now, tier, cost) - now;
      const [reset, next] = times.length ? [Math.max(...times), Math.min(...times)] : [0, 0];
      return [allowed, limit, Math.max(0, limit - used(after, now, window)), retry, reset, next];
    });
    const rank = ([, , left, retry]) => (refused ? (retry ?? Infinity) : -left);
    const binding = rows.reduce((best, row) => (rank(row) > rank(best) ? row : best));
    return { binding, rows };
  });
}

/** Takes the newest units back, and returns how many. What has left `longest` cannot come back. */
export function refund(hits, now, units, longest) {
  let owed = units;
  while (owed > 0 && hits.length > 0) {
    const [time, cost] = hits.pop();
    if (time + longest <= now) {
      hits.push([time, cost]);
      break;
    }
    if (cost > owed) hits.push([now, cost - owed]);
    owed = Math.max(0, owed - cost);
  }
  return units - owed;
}

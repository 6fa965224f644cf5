// @ts-check
/** What is the matter with a node, in a word for the style sheet and in words for people. */
import { age, megabytes, seconds } from "./dom.js";

/**
 * @param {import("./nodes.js").Node} node @param {number} now in the same milliseconds as its times
 * @returns {{state: string, words: string, more: string}}
 */
export function stateOf(node, now) {
  const { condition, report, silent_until: silent } = node;
  if (condition === "ended") return { state: "ended", words: "gone", more: afterlife(node, now) };
  if (condition === "starting") return { state: "starting", words: "starting", more: "" };
  if (condition === "draining")
    return { state: "draining", words: "draining", more: "It sends its clients elsewhere, one after the other." };
  const heals = silent ? `It hears again in ${until(silent, now)}.` : "Its link is being replaced.";
  if (report?.state === "deaf") return { state: "deaf", words: "deaf, not ready", more: `${report.trouble} ${heals}` };
  if (silent) return { state: "silent", words: "hears nothing, and has not noticed yet", more: heals };
  const size = report ? `, ${megabytes(report.memory_bytes)}` : "";
  return { state: "ready", words: `ready, up ${age(now - node.started_at)}`, more: `Process ${node.pid}${size}` };
}

/** @param {import("./nodes.js").Node} node @param {number} now */
function afterlife({ lapses_by: lapses, returns_at: returns }, now) {
  const lease = lapses ? `Its lease lapses within ${until(lapses, now)}.` : "No lease is left of it.";
  return `${lease} Another process takes its place in ${until(returns, now)}.`;
}

/** @param {number} moment @param {number} now */
const until = (moment, now) => seconds(Math.max(0, moment - now));

// @ts-check
/** What a page without a token is refused, and what whoever runs the server could set, in a sentence. */

const PERMISSION_DENIED = 103;

/**
 * @param {number} code @param {string} reason
 * @param {"subscribe" | "publish"} deed @param {string} channel
 */
export function refusal(code, reason, deed, channel) {
  if (code !== PERMISSION_DENIED) return `${reason} (${code})`;
  const namespace = channel.includes(":") ? channel.slice(0, channel.indexOf(":")) : "";
  const section = namespace ? `[namespaces.${namespace}]` : "[channels]";
  return `${reason}, unless allow_${deed}_for_anonymous = true is set in ${section}`;
}

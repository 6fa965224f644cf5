// @ts-check
/** What a publication says, whoever made it: this page, or anybody who may publish, in any shape. */

/** @param {any} data @returns {{text: string, name: string, sent: number | undefined}} */
export function readMessage(data) {
  const { text, name, sent } = Object(data);
  return {
    text: typeof text === "string" ? text : typeof data === "string" ? data : JSON.stringify(data),
    name: typeof name === "string" ? name : "",
    sent: typeof sent === "number" ? sent : undefined, // milliseconds since 1970
  };
}

// The npm package `eventsource`, unmodified: an EventSource for Node.js.
import { EventSource } from "eventsource";
import { emit, serve } from "./driver.mjs";

let source;

await serve({
  open({ url, headers }) {
    const send = (address, init) => fetch(address, { ...init, headers: { ...init.headers, ...headers } });
    source = new EventSource(url, { fetch: send });
    source.onopen = () => emit("open");
    source.onerror = ({ code, message }) => emit("error", { code, message, state: source.readyState });
    source.onmessage = ({ data, lastEventId }) => emit("message", { id: lastEventId, ...JSON.parse(data) });
    for (const kind of ["gap", "disconnect"]) {
      source.addEventListener(kind, ({ data, lastEventId }) => emit(kind, { id: lastEventId, ...JSON.parse(data) }));
    }
  },
  close() {
    source.close();
  },
});

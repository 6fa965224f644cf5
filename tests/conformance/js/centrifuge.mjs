// The official JavaScript SDK, unmodified.
import { Centrifuge, UnauthorizedError } from "centrifuge";
import WebSocket from "ws";
import { EventSource } from "eventsource";
import { emit, serve } from "./driver.mjs";

let client;

// Returns the given tokens one by one, as an application's endpoint would, and then refuses.
function tokenSource(tokens, requested) {
  return async () => {
    emit("token_requested", requested);
    if (tokens.length === 0) throw new UnauthorizedError();
    return tokens.shift();
  };
}

function watchClient() {
  for (const event of ["connecting", "disconnected"]) {
    client.on(event, ({ code, reason }) => emit(event, { code, reason }));
  }
  client.on("connected", ({ client: id, data, transport }) => emit("connected", { client: id, data, transport }));
  client.on("error", ({ type, error }) => emit("error", { type, ...error }));
  client.on("message", ({ data }) => emit("message", { data }));
  watch(client, "server_");
}

function watch(source, prefix) {
  source.on("publication", ({ channel, data, offset, info, tags }) =>
    emit(prefix + "publication", { channel, data, offset, info: clientInfo(info), tags }));
  source.on("join", ({ channel, info }) => emit(prefix + "join", { channel, info: clientInfo(info) }));
  source.on("leave", ({ channel, info }) => emit(prefix + "leave", { channel, info: clientInfo(info) }));
  source.on("subscribing", ({ channel, code, reason }) => emit(prefix + "subscribing", { channel, code, reason }));
  source.on("unsubscribed", ({ channel, code, reason }) => emit(prefix + "unsubscribed", { channel, code, reason }));
  source.on("subscribed", (ctx) =>
    emit(prefix + "subscribed", {
      channel: ctx.channel,
      recoverable: ctx.recoverable,
      positioned: ctx.positioned,
      position: ctx.streamPosition ?? null,
      was_recovering: ctx.wasRecovering,
      recovered: ctx.recovered,
      data: ctx.data ?? null,
    }));
}

function clientInfo(info) {
  return info && { client: info.client, user: info.user, conn_info: info.connInfo ?? null, chan_info: info.chanInfo ?? null };
}

const presence = (clients) => Object.fromEntries(Object.entries(clients).map(([id, info]) => [id, clientInfo(info)]));

await serve({
  // With a list of `transports` the SDK tries one after the other, and sends commands to `emulation`.
  connect({ url, transports, emulation, token, tokens, name, data }) {
    const getToken = tokens && tokenSource(tokens, { channel: null });
    const delays = { minReconnectDelay: 50, maxReconnectDelay: 200 };
    const platform = { websocket: WebSocket, eventsource: EventSource, fetch, readableStream: ReadableStream };
    const options = { ...platform, emulationEndpoint: emulation ?? "/emulation" };
    client = new Centrifuge(transports ?? url, { ...options, token, getToken, name, data, ...delays });
    watchClient();
    client.connect();
  },
  disconnect() {
    client.disconnect();
  },
  subscribe({ channel, tokens, recoverable, positioned, join_leave, since, token, delta, tags_filter }) {
    const getToken = tokens && tokenSource(tokens, { channel });
    const options = { token, getToken, recoverable, positioned, joinLeave: join_leave, since, minResubscribeDelay: 50 };
    Object.assign(options, { delta, tagsFilter: tags_filter });
    const subscription = client.newSubscription(channel, options);
    watch(subscription, "");
    subscription.on("error", ({ error }) => emit("subscription_error", { channel, ...error }));
    subscription.subscribe();
  },
  unsubscribe({ channel }) {
    client.getSubscription(channel).unsubscribe();
  },
  async publish({ channel, data }) {
    await client.publish(channel, data);
  },
  async presence({ channel }) {
    return presence((await client.presence(channel)).clients);
  },
  async presence_stats({ channel }) {
    const { numClients, numUsers } = await client.presenceStats(channel);
    return { clients: numClients, users: numUsers };
  },
  async history({ channel, limit, since, reverse }) {
    const page = await client.history(channel, { limit, since, reverse });
    const publications = page.publications.map(({ offset, data, info }) => ({ offset, data, info: clientInfo(info) ?? null }));
    return { publications, offset: page.offset, epoch: page.epoch };
  },
  async rpc({ method, data }) {
    return (await client.rpc(method, data)).data;
  },
  async send({ data }) {
    await client.send(data);
  },
});

// Drives the npm package `centrifuge`: commands and events are the JSON lines of tests/sdks/README.md.
import readline from "node:readline";
import { Centrifuge as JsonCentrifuge, UnauthorizedError } from "centrifuge";
import { Centrifuge as ProtobufCentrifuge } from "centrifuge/build/protobuf";
import { EventSource } from "eventsource";
import WebSocket from "ws";

function write(message) {
  process.stdout.write(JSON.stringify(message) + "\n");
}

// What applications give the SDK: any JSON, or in protobuf bytes.
class Payloads {
  constructor(isBinary) {
    this.isBinary = isBinary;
  }

  sent(data, binary) {
    if (!this.isBinary) return data;
    return binary === undefined ? Buffer.from(JSON.stringify(data)) : Buffer.from(binary, "base64");
  }

  // {name: JSON}, or {binary: base64} of bytes that are not JSON.
  received(data, name = "data") {
    if (!(data instanceof Uint8Array)) return { [name]: data ?? null };
    if (data.length === 0) return { [name]: null };
    try {
      return { [name]: JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(data)) };
    } catch {
      return { binary: Buffer.from(data).toString("base64") };
    }
  }

  info(info) {
    if (!info) return null;
    const { client, user, connInfo, chanInfo } = info;
    return { client, user, ...this.received(connInfo, "conn_info"), ...this.received(chanInfo, "chan_info") };
  }

  publication({ data, offset, info, tags }) {
    return { ...this.received(data), offset: offset ?? 0, info: this.info(info), tags: tags ?? {} };
  }
}

class Client {
  constructor(number, { transport, format, url, emulation_url: emulationEndpoint, token, tokens }) {
    this.number = number;
    this.payloads = new Payloads(format === "protobuf");
    const Centrifuge = this.payloads.isBinary ? ProtobufCentrifuge : JsonCentrifuge;
    this.sdk = new Centrifuge([{ transport, endpoint: url }], {
      websocket: WebSocket,
      eventsource: EventSource,
      emulationEndpoint,
      token,
      getToken: this.tokenSource(tokens, null),
      minReconnectDelay: 50,
      maxReconnectDelay: 200,
    });
    for (const event of ["connecting", "disconnected"]) {
      this.sdk.on(event, ({ code, reason }) => this.emit(event, { code, reason }));
    }
    this.sdk.on("connected", ({ client, transport }) => this.emit("connected", { client, transport }));
    this.sdk.on("error", ({ type, error }) => this.emit("error", { type, ...error }));
    this.watch(this.sdk, "server_");
    this.sdk.connect();
  }

  emit(event, details) {
    write({ client: this.number, event, details });
  }

  // Returns the given tokens one by one, as an application's endpoint would, and then refuses.
  tokenSource(tokens, channel) {
    if (!tokens) return null;
    const remaining = [...tokens];
    return async () => {
      this.emit("token_requested", { channel });
      if (remaining.length === 0) throw new UnauthorizedError();
      return remaining.shift();
    };
  }

  watch(source, prefix) {
    source.on("subscribed", ({ channel, wasRecovering, recovered, data }) =>
      this.emit(prefix + "subscribed", {
        channel, was_recovering: wasRecovering, recovered, ...this.payloads.received(data),
      }));
    source.on("publication", ({ channel, ...publication }) =>
      this.emit(prefix + "publication", { channel, ...this.payloads.publication(publication) }));
    for (const event of ["join", "leave"]) {
      source.on(event, ({ channel, info }) => this.emit(prefix + event, { channel, info: this.payloads.info(info) }));
    }
    source.on("unsubscribed", ({ channel, code, reason }) =>
      this.emit(prefix + "unsubscribed", { channel, code, reason }));
  }

  disconnect() {
    this.sdk.disconnect();
  }

  subscribe({ channel, token, tokens, delta, tag }) {
    const subscription = this.sdk.newSubscription(channel, {
      token,
      getToken: this.tokenSource(tokens, channel),
      delta: delta ? "fossil" : undefined,
      tagsFilter: tag ? { key: tag[0], cmp: "eq", val: tag[1] } : null,
      minResubscribeDelay: 50,
      maxResubscribeDelay: 200,
    });
    this.watch(subscription, "");
    subscription.on("error", ({ error: { code, message } }) =>
      this.emit("subscription_error", { channel, code, message }));
    subscription.subscribe();
  }

  unsubscribe({ channel }) {
    this.sdk.getSubscription(channel).unsubscribe();
  }

  async publish({ channel, data, binary }) {
    await this.sdk.publish(channel, this.payloads.sent(data, binary));
  }

  async presence({ channel }) {
    const { clients } = await this.sdk.presence(channel);
    return Object.fromEntries(Object.entries(clients).map(([id, info]) => [id, this.payloads.info(info)]));
  }

  async presence_stats({ channel }) {
    const { numClients, numUsers } = await this.sdk.presenceStats(channel);
    return { clients: numClients, users: numUsers };
  }

  async history({ channel, limit, since, reverse }) {
    const { publications, offset, epoch } = await this.sdk.history(channel, { limit, since, reverse });
    return { publications: publications.map((entry) => this.payloads.publication(entry)), offset, epoch };
  }

  async rpc({ method, data }) {
    return this.payloads.received((await this.sdk.rpc(method, this.payloads.sent(data))).data).data;
  }
}

const clients = new Map();

async function execute({ number, client, call, args }) {
  try {
    let result = null;
    if (call === "connect") clients.set(client, new Client(client, args));
    else result = await clients.get(client)[call](args);
    write({ number, result: result ?? null });
  } catch (error) {
    write({ number, error: { code: error.code ?? 0, message: String(error.message ?? error) } });
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) execute(JSON.parse(line));
process.exit(0);

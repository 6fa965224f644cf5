// Connects a JavaScript client to a test. Commands arrive as JSON lines on standard input: {number, call, args}.
// Results ({number, result} or {number, error}) and events ({event, …}) are printed on standard output,
// after {ready}.
import readline from "node:readline";

export function emit(event, details = {}) {
  print({ event, ...details });
}

// `calls` maps names of commands to (async) functions with one object of arguments.
export async function serve(calls) {
  print({ ready: true });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { number, call, args } = JSON.parse(line);
    Promise.resolve()
      .then(() => calls[call](args))
      .then((result) => print({ number, result: result ?? null }))
      .catch((error) => print({ number, error: { code: error.code ?? 0, message: String(error.message ?? error) } }));
  }
  process.exit(0);
}

function print(message) {
  process.stdout.write(JSON.stringify(message) + "\n");
}

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonSyntaxException;
import com.google.gson.Strictness;
import com.google.gson.stream.JsonReader;
import io.github.centrifugal.centrifuge.ReplyError;
import io.github.centrifugal.centrifuge.SubscriptionSubscribeError;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.StringReader;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;

/** Drives centrifuge-java: commands and events are the JSON lines of tests/sdks/README.md. */
final class Driver {
    static final Gson JSON = new GsonBuilder().serializeNulls().create();

    private static final PrintStream OUTPUT = new PrintStream(System.out, false, StandardCharsets.UTF_8);

    private final Map<Integer, DrivenClient> clients = new HashMap<>();

    public static void main(String[] args) throws IOException {
        Driver driver = new Driver();
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            driver.execute(JSON.fromJson(line, Command.class));
        }
        System.exit(0); // the SDK's threads may still wait
    }

    /** One line of standard input. */
    record Command(int number, int client, String call, JsonObject args) {}

    /** How a call ends: with a result, or with the error of the SDK. */
    interface Answer {
        void done(Throwable error, Object result);
    }

    private void execute(Command command) {
        Answer answer = (error, result) -> {
            Map<String, Object> message = new HashMap<>();
            message.put("number", command.number());
            if (error == null) {
                message.put("result", result);
            } else {
                message.put("error", Map.of("code", code(error), "message", String.valueOf(error)));
            }
            write(message);
        };
        try {
            if (command.call().equals("connect")) {
                clients.put(command.client(), new DrivenClient(command.client(), command.args()));
                answer.done(null, null);
            } else {
                clients.get(command.client()).call(command.call(), command.args(), answer);
            }
        } catch (Exception error) {
            answer.done(error, null);
        }
    }

    static synchronized void write(Map<String, Object> message) {
        OUTPUT.println(JSON.toJson(message));
        OUTPUT.flush();
    }

    /** The protocol's code of a refusal, or 0. The SDK wraps refusals of tokens and subscriptions. */
    static int code(Throwable error) {
        if (error instanceof ReplyError refusal) {
            return refusal.getCode();
        }
        if (error instanceof SubscriptionSubscribeError wrapper) {
            return code(wrapper.getError());
        }
        return 0;
    }

    /** The bytes for the SDK: those of `binary` in base64, or the JSON text of `data`. */
    static byte[] payload(JsonObject args) {
        if (args.has("binary")) {
            return Base64.getDecoder().decode(args.get("binary").getAsString());
        }
        return JSON.toJson(args.get("data")).getBytes(StandardCharsets.UTF_8);
    }

    /** Sets `name` to the JSON in `data`, or `binary` to the base64 of bytes that are not JSON. */
    static void put(Map<String, Object> into, String name, byte[] data) {
        if (data == null || data.length == 0) {
            into.put(name, null);
            return;
        }
        try {
            into.put(name, parsed(data));
        } catch (IOException | JsonSyntaxException notJson) {
            into.put("binary", Base64.getEncoder().encodeToString(data));
        }
    }

    private static JsonElement parsed(byte[] data) throws CharacterCodingException {
        String text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(data)).toString();
        JsonReader reader = new JsonReader(new StringReader(text));
        reader.setStrictness(Strictness.STRICT);
        return JsonParser.parseReader(reader);
    }
}

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import io.github.centrifugal.centrifuge.Client;
import io.github.centrifugal.centrifuge.ClientInfo;
import io.github.centrifugal.centrifuge.ConnectedEvent;
import io.github.centrifugal.centrifuge.ConnectingEvent;
import io.github.centrifugal.centrifuge.ConnectionTokenEvent;
import io.github.centrifugal.centrifuge.ConnectionTokenGetter;
import io.github.centrifugal.centrifuge.DisconnectedEvent;
import io.github.centrifugal.centrifuge.DuplicateSubscriptionException;
import io.github.centrifugal.centrifuge.ErrorEvent;
import io.github.centrifugal.centrifuge.EventListener;
import io.github.centrifugal.centrifuge.HistoryOptions;
import io.github.centrifugal.centrifuge.JoinEvent;
import io.github.centrifugal.centrifuge.LeaveEvent;
import io.github.centrifugal.centrifuge.Options;
import io.github.centrifugal.centrifuge.PublicationEvent;
import io.github.centrifugal.centrifuge.ServerPublicationEvent;
import io.github.centrifugal.centrifuge.ServerSubscribedEvent;
import io.github.centrifugal.centrifuge.StreamPosition;
import io.github.centrifugal.centrifuge.SubscribedEvent;
import io.github.centrifugal.centrifuge.Subscription;
import io.github.centrifugal.centrifuge.SubscriptionErrorEvent;
import io.github.centrifugal.centrifuge.SubscriptionEventListener;
import io.github.centrifugal.centrifuge.SubscriptionOptions;
import io.github.centrifugal.centrifuge.SubscriptionTokenEvent;
import io.github.centrifugal.centrifuge.SubscriptionTokenGetter;
import io.github.centrifugal.centrifuge.TokenCallback;
import io.github.centrifugal.centrifuge.UnauthorizedException;
import io.github.centrifugal.centrifuge.UnsubscribedEvent;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;

/** One client of the SDK. It speaks protobuf over a WebSocket. */
final class DrivenClient extends EventListener {
    private static final int MIN_DELAY = 50; // milliseconds
    private static final int MAX_DELAY = 200;

    private final int number;
    private final Client sdk;

    DrivenClient(int number, JsonObject args) {
        this.number = number;
        Options options = new Options();
        options.setToken(text(args, "token"));
        options.setMinReconnectDelay(MIN_DELAY);
        options.setMaxReconnectDelay(MAX_DELAY);
        if (args.get("tokens") instanceof JsonArray given) {
            Queue<String> tokens = strings(given);
            options.setTokenGetter(new ConnectionTokenGetter() {
                @Override
                public void getConnectionToken(ConnectionTokenEvent event, TokenCallback callback) {
                    nextToken(tokens, null, callback);
                }
            });
        }
        sdk = new Client(text(args, "url"), options, this);
        sdk.connect();
    }

    void call(String name, JsonObject args, Driver.Answer answer) throws DuplicateSubscriptionException {
        String channel = text(args, "channel");
        switch (name) {
            case "disconnect" -> {
                sdk.disconnect();
                answer.done(null, null);
            }
            case "subscribe" -> {
                subscribe(channel, args);
                answer.done(null, null);
            }
            case "unsubscribe" -> {
                sdk.getSubscription(channel).unsubscribe();
                answer.done(null, null);
            }
            case "publish" ->
                sdk.publish(channel, Driver.payload(args), (error, result) -> answer.done(error, null));
            case "presence" -> sdk.presence(channel, (error, result) ->
                answer.done(error, error == null ? presence(result.getClients()) : null));
            case "presence_stats" -> sdk.presenceStats(channel, (error, result) ->
                answer.done(error, error == null
                    ? Map.of("clients", result.getNumClients(), "users", result.getNumUsers()) : null));
            case "history" -> history(channel, args, answer);
            case "rpc" -> sdk.rpc(text(args, "method"), Driver.payload(args), (error, result) -> {
                Map<String, Object> described = new HashMap<>();
                Driver.put(described, "data", error == null ? result.getData() : null);
                answer.done(error, described.get("data"));
            });
            default -> throw new IllegalArgumentException("no call " + name);
        }
    }

    private void subscribe(String channel, JsonObject args) throws DuplicateSubscriptionException {
        SubscriptionOptions options = new SubscriptionOptions();
        options.setToken(text(args, "token"));
        options.setMinResubscribeDelay(MIN_DELAY);
        options.setMaxResubscribeDelay(MAX_DELAY);
        if (args.get("tokens") instanceof JsonArray given) {
            Queue<String> tokens = strings(given);
            options.setTokenGetter(new SubscriptionTokenGetter() {
                @Override
                public void getSubscriptionToken(SubscriptionTokenEvent event, TokenCallback callback) {
                    nextToken(tokens, channel, callback);
                }
            });
        }
        sdk.newSubscription(channel, options, new SubscriptionEvents(channel)).subscribe();
    }

    private void history(String channel, JsonObject args, Driver.Answer answer) {
        HistoryOptions.Builder options = new HistoryOptions.Builder()
            .withLimit(args.get("limit").getAsInt())
            .withReverse(args.get("reverse").getAsBoolean());
        if (args.get("since") instanceof JsonObject since) {
            options.withSince(new StreamPosition(since.get("offset").getAsLong(), text(since, "epoch")));
        }
        sdk.history(channel, options.build(), (error, page) -> {
            if (error != null) {
                answer.done(error, null);
                return;
            }
            List<Object> publications = new ArrayList<>();
            page.getPublications().forEach(entry -> publications.add(
                publication(entry.getData(), entry.getOffset(), entry.getInfo(), Map.of())));
            answer.done(null, Map.of(
                "publications", publications, "offset", page.getOffset(), "epoch", page.getEpoch()));
        });
    }

    /** Returns the given tokens one by one, as an application's endpoint would, and then refuses. */
    private void nextToken(Queue<String> tokens, String channel, TokenCallback callback) {
        emit("token_requested", "channel", channel);
        String token = tokens.poll();
        callback.Done(token == null ? new UnauthorizedException() : null, token);
    }

    private void emit(String event, Object... namesAndValues) {
        Map<String, Object> details = new HashMap<>();
        for (int index = 0; index < namesAndValues.length; index += 2) {
            details.put((String) namesAndValues[index], namesAndValues[index + 1]);
        }
        emit(event, details);
    }

    private void emit(String event, Map<String, Object> details) {
        Driver.write(Map.of("client", number, "event", event, "details", details));
    }

    @Override
    public void onConnecting(Client client, ConnectingEvent event) {
        emit("connecting", "code", event.getCode(), "reason", event.getReason());
    }

    @Override
    public void onConnected(Client client, ConnectedEvent event) {
        emit("connected", "client", event.getClient());
    }

    @Override
    public void onDisconnected(Client client, DisconnectedEvent event) {
        emit("disconnected", "code", event.getCode(), "reason", event.getReason());
    }

    @Override
    public void onError(Client client, ErrorEvent event) {
        Throwable error = event.getError();
        emit("error", "code", Driver.code(error), "message", String.valueOf(error));
    }

    @Override
    public void onSubscribed(Client client, ServerSubscribedEvent event) {
        emit("server_subscribed", subscribed(
            event.getChannel(), event.wasRecovering(), event.getRecovered(), event.getData()));
    }

    @Override
    public void onPublication(Client client, ServerPublicationEvent event) {
        Map<String, Object> details =
            publication(event.getData(), event.getOffset(), event.getInfo(), event.getTags());
        details.put("channel", event.getChannel());
        emit("server_publication", details);
    }

    /** The events of one subscription. */
    private final class SubscriptionEvents extends SubscriptionEventListener {
        private final String channel;

        SubscriptionEvents(String channel) {
            this.channel = channel;
        }

        @Override
        public void onSubscribed(Subscription subscription, SubscribedEvent event) {
            emit("subscribed",
                subscribed(channel, event.wasRecovering(), event.getRecovered(), event.getData()));
        }

        @Override
        public void onUnsubscribed(Subscription subscription, UnsubscribedEvent event) {
            emit("unsubscribed", "channel", channel, "code", event.getCode(), "reason", event.getReason());
        }

        @Override
        public void onError(Subscription subscription, SubscriptionErrorEvent event) {
            Throwable error = event.getError();
            emit("subscription_error",
                "channel", channel, "code", Driver.code(error), "message", String.valueOf(error));
        }

        @Override
        public void onPublication(Subscription subscription, PublicationEvent event) {
            Map<String, Object> details =
                publication(event.getData(), event.getOffset(), event.getInfo(), event.getTags());
            details.put("channel", channel);
            emit("publication", details);
        }

        @Override
        public void onJoin(Subscription subscription, JoinEvent event) {
            emit("join", "channel", channel, "info", info(event.getInfo()));
        }

        @Override
        public void onLeave(Subscription subscription, LeaveEvent event) {
            emit("leave", "channel", channel, "info", info(event.getInfo()));
        }
    }

    private static Map<String, Object> subscribed(
            String channel, boolean wasRecovering, boolean recovered, byte[] data) {
        Map<String, Object> details = new HashMap<>();
        details.put("channel", channel);
        details.put("was_recovering", wasRecovering);
        details.put("recovered", recovered);
        Driver.put(details, "data", data);
        return details;
    }

    private static Map<String, Object> publication(
            byte[] data, long offset, ClientInfo info, Map<String, String> tags) {
        Map<String, Object> details = new HashMap<>();
        details.put("offset", offset);
        details.put("info", info(info));
        details.put("tags", tags == null ? Map.of() : tags);
        Driver.put(details, "data", data);
        return details;
    }

    private static Map<String, Object> info(ClientInfo info) {
        if (info == null || info.getClient().isEmpty()) {
            return null; // without a client the SDK gives an empty info
        }
        Map<String, Object> details = new HashMap<>();
        details.put("client", info.getClient());
        details.put("user", info.getUser());
        Driver.put(details, "conn_info", info.getConnInfo());
        Driver.put(details, "chan_info", info.getChanInfo());
        return details;
    }

    private static Map<String, Object> presence(Map<String, ClientInfo> clients) {
        Map<String, Object> described = new HashMap<>();
        clients.forEach((id, info) -> described.put(id, info(info)));
        return described;
    }

    /** A string of the arguments, or "". */
    private static String text(JsonObject args, String name) {
        JsonElement value = args.get(name);
        return value == null || value.isJsonNull() ? "" : value.getAsString();
    }

    private static Queue<String> strings(JsonArray values) {
        Queue<String> strings = new ArrayDeque<>();
        values.forEach(value -> strings.add(value.getAsString()));
        return strings;
    }
}

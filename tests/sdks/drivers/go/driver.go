// Command driver drives centrifuge-go: commands and events are the JSON lines of tests/sdks/README.md.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

const maxLine = 1 << 20 // bytes

type object = map[string]any

// command is one line of standard input.
type command struct {
	Number int             `json:"number"`
	Client int             `json:"client"`
	Call   string          `json:"call"`
	Args   json.RawMessage `json:"args"`
}

// arguments are those of all calls; each call uses its own.
type arguments struct {
	URL     string          `json:"url"`
	Format  string          `json:"format"`
	Token   string          `json:"token"`
	Tokens  *[]string       `json:"tokens"`
	Channel string          `json:"channel"`
	Delta   bool            `json:"delta"`
	Tag     []string        `json:"tag"`
	Data    json.RawMessage `json:"data"`
	Binary  []byte          `json:"binary"` // base64
	Limit   int32           `json:"limit"`
	Since   *position       `json:"since"`
	Reverse bool            `json:"reverse"`
	Method  string          `json:"method"`
}

type position struct {
	Offset uint64 `json:"offset"`
	Epoch  string `json:"epoch"`
}

// payload returns the bytes for the SDK: those of `binary`, or the JSON text of `data`.
func (a arguments) payload() []byte {
	if a.Binary != nil {
		return a.Binary
	}
	return a.Data
}

var output sync.Mutex

func write(message object) {
	line, err := json.Marshal(message)
	if err != nil {
		panic(err)
	}
	output.Lock()
	defer output.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

// put sets object[name] to the JSON in data, or object["binary"] to the base64 of bytes that are not JSON.
func put(into object, name string, data []byte) object {
	switch {
	case len(data) == 0:
		into[name] = nil
	case json.Valid(data):
		into[name] = json.RawMessage(data)
	default:
		into["binary"] = data
	}
	return into
}

func describe(info *centrifuge.ClientInfo) object {
	if info == nil {
		return nil
	}
	described := object{"client": info.Client, "user": info.User}
	return put(put(described, "conn_info", info.ConnInfo), "chan_info", info.ChanInfo)
}

func publication(channel string, p centrifuge.Publication) object {
	tags := p.Tags
	if tags == nil {
		tags = map[string]string{}
	}
	details := object{"channel": channel, "offset": p.Offset, "info": describe(p.Info), "tags": tags}
	return put(details, "data", p.Data)
}

// code returns the protocol's code of a refusal, or 0.
func code(err error) uint32 {
	var refused *centrifuge.Error
	if errors.As(err, &refused) {
		return refused.Code
	}
	return 0
}

type client struct {
	number int
	sdk    *centrifuge.Client
}

func (c *client) emit(event string, details object) {
	write(object{"client": c.number, "event": event, "details": details})
}

// tokenSource returns the given tokens one by one, as an application's endpoint would, and then refuses.
func (c *client) tokenSource(tokens []string, channel any) func() (string, error) {
	var lock sync.Mutex
	return func() (string, error) {
		c.emit("token_requested", object{"channel": channel})
		lock.Lock()
		defer lock.Unlock()
		if len(tokens) == 0 {
			return "", centrifuge.ErrUnauthorized
		}
		token := tokens[0]
		tokens = tokens[1:]
		return token, nil
	}
}

func connect(number int, args arguments) *client {
	c := &client{number: number}
	config := centrifuge.Config{
		Token:             args.Token,
		MinReconnectDelay: 50 * time.Millisecond,
		MaxReconnectDelay: 200 * time.Millisecond,
		HandshakeTimeout:  5 * time.Second,
	}
	if args.Tokens != nil {
		next := c.tokenSource(*args.Tokens, nil)
		config.GetToken = func(centrifuge.ConnectionTokenEvent) (string, error) { return next() }
	}
	if args.Format == "protobuf" {
		c.sdk = centrifuge.NewProtobufClient(args.URL, config)
	} else {
		c.sdk = centrifuge.NewJsonClient(args.URL, config)
	}
	c.watch()
	_ = c.sdk.Connect() // it retries by itself
	return c
}

func (c *client) watch() {
	c.sdk.OnConnecting(func(e centrifuge.ConnectingEvent) {
		c.emit("connecting", object{"code": e.Code, "reason": e.Reason})
	})
	c.sdk.OnConnected(func(e centrifuge.ConnectedEvent) { c.emit("connected", object{"client": e.ClientID}) })
	c.sdk.OnDisconnected(func(e centrifuge.DisconnectedEvent) {
		c.emit("disconnected", object{"code": e.Code, "reason": e.Reason})
	})
	c.sdk.OnError(func(e centrifuge.ErrorEvent) {
		c.emit("error", object{"code": code(e.Error), "message": e.Error.Error()})
	})
	c.sdk.OnSubscribed(func(e centrifuge.ServerSubscribedEvent) {
		details := object{"channel": e.Channel, "was_recovering": e.WasRecovering, "recovered": e.Recovered}
		c.emit("server_subscribed", put(details, "data", e.Data))
	})
	c.sdk.OnPublication(func(e centrifuge.ServerPublicationEvent) {
		c.emit("server_publication", publication(e.Channel, e.Publication))
	})
}

func (c *client) subscribe(args arguments) error {
	channel := args.Channel
	config := centrifuge.SubscriptionConfig{
		Token:               args.Token,
		MinResubscribeDelay: 50 * time.Millisecond,
		MaxResubscribeDelay: 200 * time.Millisecond,
	}
	if args.Tokens != nil {
		next := c.tokenSource(*args.Tokens, channel)
		config.GetToken = func(centrifuge.SubscriptionTokenEvent) (string, error) { return next() }
	}
	if args.Delta {
		config.Delta = centrifuge.DeltaTypeFossil
	}
	if args.Tag != nil {
		config.TagsFilter = centrifuge.FilterEq(args.Tag[0], args.Tag[1])
	}
	subscription, err := c.sdk.NewSubscription(channel, config)
	if err != nil {
		return err
	}
	subscription.OnSubscribed(func(e centrifuge.SubscribedEvent) {
		details := object{"channel": channel, "was_recovering": e.WasRecovering, "recovered": e.Recovered}
		c.emit("subscribed", put(details, "data", e.Data))
	})
	subscription.OnUnsubscribed(func(e centrifuge.UnsubscribedEvent) {
		c.emit("unsubscribed", object{"channel": channel, "code": e.Code, "reason": e.Reason})
	})
	subscription.OnError(func(e centrifuge.SubscriptionErrorEvent) {
		details := object{"channel": channel, "code": code(e.Error), "message": e.Error.Error()}
		c.emit("subscription_error", details)
	})
	subscription.OnPublication(func(e centrifuge.PublicationEvent) {
		c.emit("publication", publication(channel, e.Publication))
	})
	subscription.OnJoin(func(e centrifuge.JoinEvent) {
		c.emit("join", object{"channel": channel, "info": describe(&e.ClientInfo)})
	})
	subscription.OnLeave(func(e centrifuge.LeaveEvent) {
		c.emit("leave", object{"channel": channel, "info": describe(&e.ClientInfo)})
	})
	return subscription.Subscribe()
}

func (c *client) unsubscribe(channel string) error {
	subscription, ok := c.sdk.GetSubscription(channel)
	if !ok {
		return errors.New("no such subscription")
	}
	return subscription.Unsubscribe()
}

func (c *client) presence(ctx context.Context, channel string) (any, error) {
	result, err := c.sdk.Presence(ctx, channel)
	clients := object{}
	for id, info := range result.Clients {
		clients[id] = describe(&info)
	}
	return clients, err
}

func (c *client) history(ctx context.Context, args arguments) (any, error) {
	options := []centrifuge.HistoryOption{
		centrifuge.WithHistoryLimit(args.Limit),
		centrifuge.WithHistoryReverse(args.Reverse),
	}
	if args.Since != nil {
		since := &centrifuge.StreamPosition{Offset: args.Since.Offset, Epoch: args.Since.Epoch}
		options = append(options, centrifuge.WithHistorySince(since))
	}
	page, err := c.sdk.History(ctx, args.Channel, options...)
	publications := []object{}
	for _, p := range page.Publications {
		publications = append(publications, publication(args.Channel, p))
	}
	return object{"publications": publications, "offset": page.Offset, "epoch": page.Epoch}, err
}

func (c *client) call(name string, args arguments) (any, error) {
	ctx := context.Background()
	switch name {
	case "disconnect":
		return nil, c.sdk.Disconnect()
	case "subscribe":
		return nil, c.subscribe(args)
	case "unsubscribe":
		return nil, c.unsubscribe(args.Channel)
	case "publish":
		_, err := c.sdk.Publish(ctx, args.Channel, args.payload())
		return nil, err
	case "presence":
		return c.presence(ctx, args.Channel)
	case "presence_stats":
		stats, err := c.sdk.PresenceStats(ctx, args.Channel)
		return object{"clients": stats.NumClients, "users": stats.NumUsers}, err
	case "history":
		return c.history(ctx, args)
	case "rpc":
		result, err := c.sdk.RPC(ctx, args.Method, args.payload())
		return put(object{}, "data", result.Data)["data"], err
	}
	return nil, errors.New("no call " + name)
}

// clients are those that `connect` made, by number.
type clients struct {
	lock sync.Mutex
	all  map[int]*client
}

func (c *clients) execute(line command) (any, error) {
	var args arguments
	if err := json.Unmarshal(line.Args, &args); err != nil {
		return nil, err
	}
	c.lock.Lock()
	target := c.all[line.Client]
	c.lock.Unlock()
	if line.Call != "connect" {
		return target.call(line.Call, args)
	}
	made := connect(line.Client, args)
	c.lock.Lock()
	defer c.lock.Unlock()
	c.all[line.Client] = made
	return nil, nil
}

func main() {
	connected := clients{all: map[int]*client{}}
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, maxLine)
	for input.Scan() {
		var line command
		if err := json.Unmarshal(input.Bytes(), &line); err != nil {
			panic(err)
		}
		go func() {
			result, err := connected.execute(line)
			if err != nil {
				write(object{"number": line.Number, "error": object{"code": code(err), "message": err.Error()}})
				return
			}
			write(object{"number": line.Number, "result": result})
		}()
	}
}

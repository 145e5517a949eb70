/// The keys of a device profile's file.
enum ProfileKeys {
    /// More would be no readable file.
    static let matchesMax = 64
    private static let filtersMax = 256
    private static let seconds: ClosedRange<UInt64> = 1...UInt64(UInt32.max) - 1
    private static let each: ClosedRange<UInt64> = 1...1_000_000

    static let about =
        "How Tidegate treats a class of device. What is not written stays as it is without profiles."

    static let all: [KeyDescription] = [
        KeyDescription(
            "profile", .text(pattern: "^[A-Za-z0-9_-]{1,64}$"), example: "battery-sensor", isRequired: true,
            "What the profile is called: letters, digits, - and _. It is the value of ${profile}."),
        KeyDescription(
            "order", .count(1...1_000_000), example: 20.description,
            "Which profile is tried first: the one with the smallest number; no two have the same. A profile without match is the default and has no order."
        ),
        KeyDescription(
            "match", .mappings(subject: "match", match, countMax: matchesMax),
            example: "{ client-id: \"battery-*\" }",
            "Who gets this profile: any of these is enough, and all that one of them says must agree. * stands for any characters, ? for one."
        ),
        KeyDescription(
            "sessions", .mapping(subject: "sessions", sessions), example: "{ expiry-max: 30d }",
            "How long the session of an absent client is kept."),
        KeyDescription(
            "keep-alive", .mapping(subject: "keep-alive", keepAlive), example: "{ max: 5m }",
            "How long a client may be silent: MQTT 5 clients are told, older ones are held to it."),
        KeyDescription(
            "qos", .count(0...2), example: "1",
            "The highest QoS of what it publishes and of what it is granted."),
        KeyDescription(
            "receive-maximum", .count(1...10_000), example: "20",
            "How many messages may be in flight each way before the first is acknowledged."),
        KeyDescription(
            "packet-size", .size(128...256 << 20), example: "64 KiB",
            "The largest packet it may send, of whatever kind."),
        KeyDescription(
            "publish", .mapping(subject: "publish", rights), example: "{ allow: \"sensors/${clientid}/#\" }",
            "Where it may publish. Without it everywhere."),
        KeyDescription(
            "subscribe", .mapping(subject: "subscribe", rights),
            example: "{ allow: \"commands/${clientid}/#\" }",
            "What it may subscribe to. Without it to everything."),
        KeyDescription(
            "rate", .mapping(subject: "rate", rate), example: "{ messages: 10/s, burst: 50 }",
            "How fast it may publish; a faster one is read more slowly, and nothing is lost."),
        KeyDescription(
            "queue", .mapping(subject: "queue", queue),
            example: "{ messages: 10000, when-full: drop-oldest }",
            "What may wait for it while it is away or slow."),
        KeyDescription(
            "durability", .word(["latency", "balanced", "flash-saver"]), example: "balanced",
            "What an acknowledgement may cost the flash, and so how soon it comes. Acknowledged is always on flash."
        ),
        KeyDescription(
            "message-expiry", .mapping(subject: "message-expiry", expiry), example: "{ max: 7d }",
            "When what it publishes is of no use any more."),
        KeyDescription(
            "uplink", .mapping(subject: "uplink", uplink), example: "{ priority: high }",
            "Which clouds get what it publishes, and how soon."),
        KeyDescription(
            "liveness", .mapping(subject: "liveness", liveness),
            example: "{ silent-for: 10m, topic: \"state/${clientid}\" }",
            "A retained message that says whether the device has been heard lately, connected or not."),
        KeyDescription(
            "report-by-exception",
            .mappings(subject: "report-by-exception", exception, countMax: filtersMax),
            example: "{ topic: \"sensors/#\", deadband: 0.5 }",
            "Values of which the cloud gets only what is news. Who subscribes here gets everything. The first whose topic matches decides."
        ),
        KeyDescription(
            "keep-last-value", .texts(countMax: filtersMax), example: "\"sensors/${clientid}/#\"",
            "What it publishes there is retained, whether it asks for that or not."),
    ]

    private static let match: [KeyDescription] = [
        KeyDescription("client-id", .text(), example: "\"battery-*\"", "A pattern of client identifiers."),
        KeyDescription("username", .text(), example: "\"sensor-*\"", "A pattern of user names."),
        KeyDescription(
            "certificate-subject", .text(), example: "\"CN=press-*,O=Plant 7\"",
            "A pattern of the subject in the client's certificate, as RFC 4514 writes it."),
        KeyDescription(
            "certificate-issuer", .text(), example: "\"CN=Plant 7 Devices*\"",
            "A pattern of the issuer in the client's certificate."),
        KeyDescription(
            "listener", .text(), example: "127.0.0.1:1883",
            "The address of the listener that it connects to, as tidegate.yaml has it."),
    ]

    private static let sessions: [KeyDescription] = [
        KeyDescription(
            "expiry-for-3.1.1", .seconds(seconds, mayBeNever: true), example: "7d",
            "For 3.1 and 3.1.1 clients with Clean Session 0, which cannot say it."),
        KeyDescription(
            "expiry-max", .seconds(seconds, mayBeNever: true), example: "30d",
            "The longest that an MQTT 5 client gets."),
    ]

    private static let keepAlive: [KeyDescription] = [
        KeyDescription("min", .seconds(1...65_535), example: "30s", "A shorter one is lengthened."),
        KeyDescription("max", .seconds(1...65_535), example: "10m", "A longer one, or none, is shortened."),
    ]

    private static let rights: [KeyDescription] = [
        KeyDescription(
            "allow", .texts(countMax: filtersMax), example: "\"sensors/${clientid}/#\"",
            "Topic filters; nothing else is allowed. ${clientid}, ${username}, ${profile} and ${gateway} stand for the client's own."
        ),
        KeyDescription(
            "deny", .texts(countMax: filtersMax), example: "\"sensors/+/calibration\"",
            "Topic filters; what they match is refused whatever allow says. # is everything, also what begins with $."
        ),
    ]

    private static let rate: [KeyDescription] = [
        KeyDescription("messages", .countPerSecond(each), example: "10/s", "Messages each second."),
        KeyDescription(
            "burst", .count(1...1_000_000), example: "50",
            "How many may come at once after a quiet time; without it what comes in a second."),
        KeyDescription(
            "bytes", .sizePerSecond(64...1 << 30), example: "16 KiB/s",
            "Topics, properties and payloads each second."),
        KeyDescription("bytes-burst", .size(64...1 << 30), example: "64 KiB", "The same for bytes."),
    ]

    static let queue: [KeyDescription] = [
        KeyDescription("messages", .count(1...1_000_000_000), example: "10000", "The most messages."),
        KeyDescription("bytes", .size(4096...1 << 43), example: "16 MiB", "The most bytes of messages."),
        KeyDescription(
            "when-full", .word(["refuse", "drop-oldest", "drop-newest"]), example: "drop-oldest",
            "refuse: the publisher is told, or waits. drop-oldest and drop-newest: one goes, and is counted."),
    ]

    private static let expiry: [KeyDescription] = [
        KeyDescription("default", .seconds(seconds), example: "1d", "Of messages that come without one."),
        KeyDescription("max", .seconds(seconds), example: "7d", "Instead of a longer one."),
    ]

    private static let uplink: [KeyDescription] = [
        KeyDescription(
            "only", .texts(countMax: 64), example: "cloud",
            "Names of uplinks; without it all whose routes carry the topic."),
        KeyDescription(
            "priority", .word(["high", "normal", "low"]), example: "high",
            "What leaves first when more waits than may leave, instead of the route's."),
    ]

    private static let liveness: [KeyDescription] = [
        KeyDescription(
            "silent-for", .seconds(seconds), example: "10m", isRequired: true,
            "Longer than that without a word, and the device is offline."),
        KeyDescription(
            "topic", .text(), example: "\"state/${clientid}\"", isRequired: true,
            "Where the retained message is."),
        KeyDescription("online", .text(), example: "online", "Its payload while the device is heard."),
        KeyDescription("offline", .text(), example: "offline", "Its payload when it is silent."),
    ]

    private static let exception: [KeyDescription] = [
        KeyDescription(
            "topic", .text(), example: "\"sensors/+/temperature\"", isRequired: true, "A topic filter."),
        KeyDescription(
            "value", .text(pattern: "^(/.*)?$"), example: "/temperature",
            "Where the number is in a JSON payload (RFC 6901); without it the payload is the number."),
        KeyDescription(
            "deadband", .text(pattern: "^[0-9]+([.][0-9]+)?( *%)?$"), example: "0.5", isRequired: true,
            "A smaller change is no news: in the value's own unit, or in % of the last value that went up."),
        KeyDescription(
            "min-interval", .milliseconds(1...604_800_000), example: "10s",
            "However much it changes, no more often than this; the newest change goes up when it is over."),
        KeyDescription(
            "max-interval", .milliseconds(1000...604_800_000), example: "15m",
            "However little it changes, at least this often while it is published at all."),
    ]
}

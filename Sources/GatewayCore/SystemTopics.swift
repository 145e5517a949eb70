import MQTT

// The `$SYS/broker/…` tree under the names that Mosquitto's users and their dashboards read
// [MQTT5-4.7.2]. It looks like retained messages, but it is computed: nothing of it is in a Record, everybody
// gets it at QoS 0, and whoever is away misses it.

/// One topic of the tree with its value.
struct SystemTopic: Equatable {
    let name: [UInt8]
    let value: [UInt8]

    fileprivate init(_ name: String, _ value: String) {
        self.name = Array("$SYS/broker/\(name)".utf8)
        self.value = Array(value.utf8)
    }

    var message: ApplicationMessage { ApplicationMessage(topic: name, payload: value) }

    /// Whether a Topic Name belongs to the gateway alone: `$SYS`, and everything below it but for what bridges say of
    /// themselves. Mosquitto's bridges do so unless they are told not to, retained and by their Will, at
    /// `$SYS/broker/connection/NAME/state`; refused, they would never connect.
    ///
    /// - Complexity: O(1), and below `$SYS/broker/connection` O(bytes)
    static func owns(_ topic: ArraySlice<UInt8>) -> Bool {
        let root = "$SYS".utf8
        // Every message asks, and mostly in vain.
        guard topic.first == UInt8(ascii: "$"), topic.starts(with: root) else { return false }
        let rest = topic.dropFirst(root.count)
        return rest.isEmpty || rest.first == UInt8(ascii: "/") && !isStateOfBridge(topic)
    }

    private static func isStateOfBridge(_ topic: ArraySlice<UInt8>) -> Bool {
        let (parent, state) = ("$SYS/broker/connection/".utf8, "/state".utf8)
        guard topic.starts(with: parent) else { return false }
        let name = topic.dropFirst(parent.count)
        guard name.count > state.count, name.suffix(state.count).elementsEqual(state) else { return false }
        return !name.dropLast(state.count).contains(UInt8(ascii: "/"))
    }
}

extension Gateway {
    // MARK: Publishing

    /// Tells whoever subscribes what has changed since it was told last, and comes again an interval later.
    ///
    /// - Complexity: O(Sessions) while anybody subscribes to anything under `$SYS`, else O(1)
    mutating func publishSystemTopics(at now: Instant, into effects: inout [Effect]) {
        guard let interval = plan.systemTopicsMilliseconds, !isStopping else { return }
        schedule(.systemTopics, at: now.advanced(byMilliseconds: interval))
        statistics.tick(at: now)
        guard state.routing.hasSystemSubscribers else {
            systemTopics = []
            return
        }
        let told = systemTopics
        systemTopics = currentSystemTopics(at: now)
        for (i, topic) in systemTopics.enumerated() where i >= told.count || told[i] != topic {
            tell(topic, at: now, into: &effects)
        }
    }

    private mutating func tell(_ topic: SystemTopic, at now: Instant, into effects: inout [Effect]) {
        let shares = state.routing.shares(
            of: topic.name[...], published: .atMostOnce, retain: true, by: nil)
        let record = MessageRecord(qos: .atMostOnce, message: topic.message, expiresAt: nil)
        for share in shares {
            sendAtMostOnce(
                StoredMessage(record, to: share), to: share.session, after: .zero, at: now, into: &effects)
        }
    }

    /// Says that an uplink is connected (`1`) or not (`0`), as soon as that changes and whether or not there is any
    /// other topic of the tree.
    mutating func tellUplinkState(_ index: UplinkIndex, at now: Instant, into effects: inout [Effect]) {
        guard state.routing.hasSystemSubscribers else { return }
        tell(uplinkState(index.number), at: now, into: &effects)
    }

    /// Whether a Topic Name belongs to the gateway alone: the states of its own uplinks do, beside which those of bridges
    /// stand.
    ///
    /// - Complexity: O(1), and below `$SYS/broker/connection` O(uplinks)
    func owns(_ topic: ArraySlice<UInt8>) -> Bool {
        guard topic.first == UInt8(ascii: "$") else { return false }
        return SystemTopic.owns(topic)
            || uplinks.indices.contains { uplinkState($0).name.elementsEqual(topic) }
    }

    /// Under the name that Mosquitto gives it for a bridge `<uplink>` of a broker `<gateway>`.
    private func uplinkState(_ number: Int) -> SystemTopic {
        SystemTopic(
            "connection/\(plan.gateway).\(plan.uplinks[number].name)/state",
            uplinks[number].isConnected ? "1" : "0")
    }

    /// What was told last, with RETAIN 1, for a new subscription.
    ///
    /// - Complexity: O(topics of the tree); O(Sessions) for the first subscriber in a while
    mutating func sendSystemTopics(
        _ request: SubscriptionRequest, _ identifier: UInt32?, to session: SessionID, after suback: Position,
        at now: Instant, into effects: inout [Effect]
    ) {
        guard request.filter.shareName == nil, request.filter.pattern.starts(with: "$SYS".utf8) else {
            return
        }
        if plan.systemTopicsMilliseconds != nil, systemTopics.isEmpty {
            systemTopics = currentSystemTopics(at: now)
        }
        let target = MessageRecord.Target(
            session: session, qos: .atMostOnce, retain: true,
            subscriptionIdentifiers: identifier.map { [$0] } ?? [])
        for topic in systemTopics + uplinks.indices.map({ uplinkState($0) })
        where request.filter.matches(topic.name) {
            let record = MessageRecord(qos: .atMostOnce, message: topic.message, expiresAt: nil)
            lead(StoredMessage(record, to: target), to: session, after: suback, into: &effects)
        }
    }

    // MARK: Values

    private func currentSystemTopics(at now: Instant) -> [SystemTopic] {
        let census = state.census
        let s = statistics
        var topics = [
            SystemTopic("version", plan.version),
            SystemTopic("uptime", "\(now.milliseconds(since: startedAt) / 1000) seconds"),
        ]
        func add(_ name: String, _ value: some BinaryInteger) { topics.append(SystemTopic(name, "\(value)")) }
        add("clients/total", s.connectedCount + census.absentClients)
        add("clients/connected", s.connectedCount)
        add("clients/active", s.connectedCount)
        add("clients/disconnected", census.absentClients)
        add("clients/inactive", census.absentClients)
        add("clients/maximum", s.connectedMax)
        add("clients/expired", s.sessionsExpired)
        add("messages/received", s.messagesReceived.total)
        add("messages/sent", s.messagesSent.total)
        add("messages/stored", census.storedMessages)
        add("store/messages/count", census.storedMessages)
        add("publish/messages/received", s.publishesReceived.total)
        add("publish/messages/sent", s.publishesSent.total)
        add("publish/messages/dropped", s.publishesDropped.total)
        add("publish/bytes/received", s.payloadBytesReceived)
        add("publish/bytes/sent", s.payloadBytesSent)
        add("bytes/received", s.bytesReceived.total)
        add("bytes/sent", s.bytesSent.total)
        add("subscriptions/count", census.subscriptions)
        add("shared_subscriptions/count", census.sharedSubscriptions)
        add("retained messages/count", state.retained.count)
        func add(_ name: String, _ load: LoadAverage) {
            topics.append(SystemTopic("load/\(name)/1min", Self.twoDecimals(load.oneMinute)))
            topics.append(SystemTopic("load/\(name)/5min", Self.twoDecimals(load.fiveMinutes)))
            topics.append(SystemTopic("load/\(name)/15min", Self.twoDecimals(load.fifteenMinutes)))
        }
        add("messages/received", s.messagesReceived.load)
        add("messages/sent", s.messagesSent.load)
        add("publish/received", s.publishesReceived.load)
        add("publish/sent", s.publishesSent.load)
        add("publish/dropped", s.publishesDropped.load)
        add("bytes/received", s.bytesReceived.load)
        add("bytes/sent", s.bytesSent.load)
        add("sockets", s.sockets.load)
        add("connections", s.connects.load)
        return topics
    }

    private static func twoDecimals(_ value: Double) -> String {
        let hundredths = UInt64((value * 100).rounded())
        let fraction = hundredths % 100
        return "\(hundredths / 100).\(fraction < 10 ? "0" : "")\(fraction)"
    }
}

/// What can only be counted by looking at every Session.
struct Census {
    /// Clients with a persistent Session that are not here.
    var absentClients = 0
    /// Subscriptions of clients, shared ones included.
    var subscriptions = 0
    var sharedSubscriptions = 0
    /// Retained messages, and deliveries to clients that wait: a message that two wait for counts twice.
    var storedMessages = 0
}

extension Routing {
    /// Whether any filter begins with `$SYS`: wildcards in its place do not match it [MQTT5-4.7.2-1].
    var hasSystemSubscribers: Bool { hasFilters(below: Array("$SYS".utf8)[...]) }
}

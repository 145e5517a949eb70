import GatewayCore
import MQTT

/// A gateway with a journal one can sync, fail and recover by hand, and clients spoken for packet by packet.
/// Nothing moves by itself: time, syncs and power cuts happen when a test says so.
struct Scenario: ~Copyable {
    private(set) var gateway: Gateway
    private(set) var now: Instant
    private var plan: GatewayPlan
    /// Every Record appended and not lost, in order; the first has position 1.
    private(set) var journal: [Record] = []
    /// How soon the last Record must be durable.
    private(set) var lastUrgency: Urgency?
    /// The same of the last message.
    private(set) var lastMessageUrgency: Urgency?
    /// How many of `journal` a completed sync covers.
    private(set) var synced = 0
    /// The complete stretches of `journal`, in order; each has an index.
    private(set) var sealed: [Stretch] = []
    private(set) var indexings: [(SessionID, Stretch)] = []
    /// Where messages are that no index has any more.
    var damagedPostings: Set<Position> = []
    /// Where messages are whose bytes are damaged: they can be read no more.
    var damaged: Set<Position> = []
    /// Answers for indexes come at once; a test that wants them late turns it off.
    var answersIndexes = true
    private var checkpoint: (records: [Record], last: Int)?
    /// Positions of `journal` that were elided: nobody will ever read them.
    private(set) var elided: Set<UInt64> = []
    /// Up to where nothing lingers any more.
    private(set) var hastened = Position.zero
    /// Elides at once what is not synced when it is asked to; a journal whose sync is under way would not.
    var elides = true
    private(set) var observations: [Observation] = []
    private(set) var loads: [(SessionID, [Position])] = []
    /// Answers loads at once; a test that wants them late turns it off.
    var answersLoads = true

    /// The last Record before it, and the clock then.
    private var lastStart = (after: Position.zero, since: Instant(milliseconds: 0))
    private var nextConnection: UInt64 = 1
    private var connectionOfClient: [String: ConnectionID] = [:]
    private var inboxes: [ConnectionID: [Packet]] = [:]
    private var versions: [ConnectionID: ProtocolVersion] = [:]
    /// The largest packets that are read of clients for whom there is such a bound.
    private var packetBytesMax: [ConnectionID: UInt32] = [:]
    private var uplinkCommands: [Int: [UplinkCommand]] = [:]
    private(set) var closed: Set<ConnectionID> = []
    private(set) var paused: Set<ConnectionID> = []

    init(plan: GatewayPlan = GatewayPlan(), now: Instant = Instant(milliseconds: 1_000_000)) {
        self.plan = plan
        self.now = now
        var effects: [Effect] = []
        gateway = Gateway(plan: plan, state: DurableState(), lastPosition: .zero, now: now, into: &effects)
        carryOut(effects)
    }

    /// A gateway to which a persistent MQTT 5 client is connected, everything synced, nothing unread.
    static func connected(_ clients: String..., plan: GatewayPlan = GatewayPlan()) -> Scenario {
        var scenario = Scenario(plan: plan)
        for client in clients { scenario.connects(client) }
        return scenario
    }

    // MARK: Clients

    /// Opens a connection and sends CONNECT; what comes back is unread.
    mutating func opens(
        _ client: String, _ connect: Connect, listener: Int = 0, certificate: CertificateNames? = nil
    ) {
        let id = ConnectionID(nextConnection)
        nextConnection += 1
        connectionOfClient[client] = id
        versions[id] = connect.version
        handle(.opened(id, listener: listener, certificate: certificate))
        handle(.received(id, .connect(connect)))
    }

    /// Connects, syncs, and reads CONNACK.
    mutating func connects(
        _ client: String, version: ProtocolVersion = .v5_0, cleanStart: Bool = false, expiry: UInt32? = 3600,
        keepAlive: UInt16 = 0, will: Will? = nil, receiveMaximum: UInt16? = nil
    ) {
        opens(
            client,
            Connect(
                version: version, clientIdentifier: client, cleanStart: cleanStart,
                keepAliveSeconds: keepAlive,
                will: will, sessionExpirySeconds: version == .v5_0 ? expiry : nil,
                receiveMaximum: receiveMaximum))
        syncs()
        let packets = received(client)
        precondition(
            packets.first.map { if case .connack = $0 { true } else { false } } ?? false, "\(packets)")
        if packets.count > 1 { inboxes[connection(of: client)] = Array(packets.dropFirst()) }
    }

    mutating func subscribes(_ client: String, _ filter: String, qos: QoS = .exactlyOnce) {
        guard let filter = TopicFilter(filter) else { preconditionFailure("not a Topic Filter: \(filter)") }
        sends(
            client,
            .subscribe(Subscribe(id: 999, requests: [SubscriptionRequest(filter: filter, maximumQoS: qos)])))
        syncs()
        inboxes[connection(of: client)]?.removeAll { if case .suback = $0 { true } else { false } }
    }

    mutating func sends(_ client: String, _ packet: Packet) {
        let id = connection(of: client)
        if let most = packetBytesMax[id], let version = versions[id] {
            var bytes: [UInt8] = []
            packet.encode(version: version, into: &bytes)
            // As the decoder sees it.
            guard bytes.count <= most else { return handle(.malformed(id, .packetTooLarge, in: version)) }
        }
        handle(.received(id, packet))
    }

    /// The client's socket is gone without DISCONNECT.
    mutating func vanishes(_ client: String) { handle(.closed(connection(of: client))) }

    /// DISCONNECT, then the socket closes.
    mutating func leaves(_ client: String, _ disconnect: Disconnect = Disconnect()) {
        sends(client, .disconnect(disconnect))
        vanishes(client)
    }

    /// What came since it was last asked, without the words that explain a refusal.
    mutating func received(_ client: String) -> [Packet] {
        receivedInFull(client).map(\.withoutReasonString)
    }

    /// What came since it was last asked, as it came.
    mutating func receivedInFull(_ client: String) -> [Packet] {
        defer { inboxes[connection(of: client)] = [] }
        return inboxes[connection(of: client)] ?? []
    }

    /// The payloads of the PUBLISH packets that came since it was last asked.
    mutating func texts(_ client: String) -> [String] { received(client).publishes.map(\.text) }

    /// Answers whatever comes, syncing in between, until nothing more does; returns the PUBLISH packets.
    ///
    /// - Parameter inRounds: a millisecond passes whenever nothing comes, for what was too much for one round.
    mutating func drains(_ client: String, inRounds: Bool = false) -> [Publish] {
        var got: [Publish] = []
        while true {
            syncs()
            var packets = received(client)
            if packets.isEmpty, inRounds {
                passes(milliseconds: 1)
                packets = received(client)
            }
            if packets.isEmpty { return got }
            got += packets.publishes
            for case .some(let answer) in packets.map(\.subscribersAnswer) { sends(client, answer) }
        }
    }

    /// Clients whose last connection the gateway closed.
    var closedClients: Set<String> { Set(connectionOfClient.filter { closed.contains($0.value) }.keys) }
    /// Clients whose socket is not read.
    var pausedClients: Set<String> { Set(connectionOfClient.filter { paused.contains($0.value) }.keys) }

    func connection(of client: String) -> ConnectionID {
        guard let id = connectionOfClient[client] else { preconditionFailure("\(client) never connected") }
        return id
    }

    // MARK: Uplinks

    mutating func cloudConnects(_ uplink: Int = 0, sessionPresent: Bool, receiveMaximum: UInt16 = 100) {
        handle(
            .uplink(
                UplinkIndex(uplink),
                .connected(
                    UplinkTerms(
                        version: .v5_0, sessionPresent: sessionPresent, receiveMaximum: receiveMaximum))))
    }

    mutating func cloudConnects(_ terms: UplinkTerms, on uplink: Int = 0) {
        handle(.uplink(UplinkIndex(uplink), .connected(terms)))
    }

    mutating func cloudSends(_ uplink: Int = 0, _ packet: Packet) {
        handle(.uplink(UplinkIndex(uplink), .received(packet)))
    }

    mutating func cloudVanishes(_ uplink: Int = 0) { handle(.uplink(UplinkIndex(uplink), .disconnected)) }

    /// - Returns: how many will go.
    mutating func replays(_ numbers: [UInt64]? = nil, uplink: String = "cloud") -> Int {
        var effects: [Effect] = []
        let count = gateway.replayDeadLetters(uplink: uplink, numbers: numbers, at: now, into: &effects)
        carryOut(effects)
        return count
    }

    /// - Returns: how many went.
    mutating func purges(_ numbers: [UInt64]? = nil, uplink: String = "cloud") -> Int {
        var effects: [Effect] = []
        let count = gateway.purgeDeadLetters(uplink: uplink, numbers: numbers, at: now, into: &effects)
        carryOut(effects)
        return count
    }

    /// Packets for the cloud since it was last asked.
    mutating func cloudReceived(_ uplink: Int = 0) -> [Packet] {
        defer { uplinkCommands[uplink]?.removeAll { if case .send = $0 { true } else { false } } }
        return (uplinkCommands[uplink] ?? []).compactMap {
            if case .send(let packet) = $0 { packet } else { nil }
        }
    }

    /// Commands to the uplink other than packets, since it was last asked.
    mutating func uplinkControls(_ uplink: Int = 0) -> [UplinkCommand] {
        defer { uplinkCommands[uplink]?.removeAll { if case .send = $0 { false } else { true } } }
        return (uplinkCommands[uplink] ?? []).filter { if case .send = $0 { false } else { true } }
    }

    /// The configuration changes, for later starts too.
    mutating func reconfigures(_ plan: GatewayPlan) {
        self.plan = plan
        handle(.reconfigured(plan))
    }

    /// Everything durable, the process ends, and another begins with this configuration.
    mutating func restarts(with plan: GatewayPlan) {
        syncs()
        self.plan = plan
        losesPower()
    }

    // MARK: Storage and time

    /// Everything appended so far becomes durable.
    mutating func syncs() {
        while synced < journal.count { syncsOnce() }
    }

    /// Everything appended so far becomes durable, and what is appended then does not.
    mutating func syncsOnce() { syncsNext(journal.count) }

    /// The next `count` Records become durable, and those behind them do not.
    mutating func syncsNext(_ count: Int) {
        synced = min(synced + count, journal.count)
        handle(.storage(.durable(upTo: Position(UInt64(synced)))))
    }

    /// What is durable becomes a complete stretch of the log, if there is anything new.
    mutating func seals() {
        let stretch = Stretch(
            first: sealed.last?.last.next ?? Position(1), last: Position(UInt64(lastWritten)))
        guard stretch.first <= stretch.last else { return }
        sealed.append(stretch)
        handle(.storage(.sealed(stretch, queues: queues(in: stretch))))
    }

    /// Everything becomes durable, and so does a checkpoint of it.
    mutating func checkpoints() {
        syncs()
        var records: [Record] = []
        gateway.state.snapshot { records.append($0) }
        checkpoint = (records, lastWritten)
    }

    /// How many Records there are up to the last one that a sync covers and that was not elided.
    private var lastWritten: Int {
        (0...synced).last { !elided.contains(UInt64($0)) } ?? 0
    }

    mutating func answersIndex(_ session: SessionID, _ stretch: Stretch) {
        handle(.storage(.indexed(session, stretch, postings(session, stretch))))
    }

    private func queues(in stretch: Stretch) -> [SessionID] {
        var queues: Set<SessionID> = []
        for i in records(of: stretch) where !elided.contains(UInt64(i + 1)) {
            guard case .message(let record) = journal[i] else { continue }
            for target in record.targets { queues.insert(target.session) }
        }
        return queues.sorted()
    }

    private func records(of stretch: Stretch) -> Range<Int> {
        Int(stretch.first.number) - 1..<Int(stretch.last.number)
    }

    private func postings(_ session: SessionID, _ stretch: Stretch) -> [Posting] {
        records(of: stretch).flatMap { i -> [Posting] in
            let position = Position(UInt64(i + 1))
            guard case .message(let record) = journal[i], !damagedPostings.contains(position),
                !elided.contains(position.number)
            else { return [] }
            return record.targets.filter { $0.session == session }.compactMap { target in
                target.delivery.map {
                    Posting(
                        delivery: $0, position: position, qos: target.qos,
                        bytes: UInt32(record.message.bytes.count))
                }
            }
        }
    }

    /// Time passes in which nobody is here to meet a deadline.
    mutating func skipsTime(milliseconds: UInt64) { now = now.advanced(byMilliseconds: milliseconds) }

    /// Time passes; deadlines are met on the way.
    mutating func passes(milliseconds: UInt64) {
        let target = now.advanced(byMilliseconds: milliseconds)
        while let next = gateway.nextDeadline, next <= target {
            now = max(now, next)
            handle(.deadline)
        }
        now = target
    }

    /// The power fails: what no sync covered is gone, and so are all connections. Then the gateway starts
    /// again from what is left.
    ///
    /// - Parameter keeping: how many unsynced Records survive by luck.
    mutating func losesPower(keeping lucky: Int = 0) {
        journal.removeLast(journal.count - min(journal.count, synced + lucky))
        synced = journal.count
        restart(from: replayed())
    }

    /// The same, from a checkpoint of the whole state instead of the Records themselves.
    mutating func losesPowerAndRecoversFromCheckpoint() {
        journal.removeLast(journal.count - synced)
        synced = journal.count
        restart(from: restored(from: replayed()))
    }

    /// The same, from the checkpoint that was written last and the Records behind it.
    mutating func losesPowerAndRecoversFromOldCheckpoint() {
        journal.removeLast(journal.count - synced)
        restart(from: replayedFromCheckpoint())
    }

    /// The process is killed and started again while the machine stays up: the uptime has counted how long it was off.
    mutating func isKilled(offFor milliseconds: UInt64) {
        journal.removeLast(journal.count - synced)
        restart(from: replayed(), countedOff: milliseconds)
    }

    /// The wall clock proves how long the gateway was off before its last start.
    mutating func learns(offFor milliseconds: UInt64) {
        handle(.wasOff(OffTime(after: lastStart.after, since: lastStart.since, milliseconds: milliseconds)))
    }

    /// What recovery would come to now, without a checkpoint.
    ///
    /// - Parameter without: Records that are lost to damage.
    func replayed(without lost: Set<Int> = []) -> DurableState {
        var state = DurableState()
        replay(0..<journal.count, without: lost, into: &state)
        return state
    }

    func replayedFromCheckpoint() -> DurableState {
        guard let checkpoint else { return replayed() }
        var state = DurableState()
        for record in checkpoint.records { state.apply(record, at: .zero) }
        replay(checkpoint.last..<journal.count, into: &state)
        return state
    }

    private func restored(from whole: borrowing DurableState) -> DurableState {
        var state = DurableState()
        whole.snapshot { state.apply($0, at: .zero) }
        return state
    }

    private func replay(_ range: Range<Int>, without lost: Set<Int> = [], into state: inout DurableState) {
        state.limits.queueEntriesMax = plan.limits.queueEntriesMax
        var ends = sealed[...]
        var missing: UInt64 = 0
        for i in range {
            let position = Position(UInt64(i + 1))
            while let next = ends.first, next.last < position { ends.removeFirst() }
            if lost.contains(i) {
                missing += 1
            } else if !elided.contains(position.number) {
                if missing > 0 {
                    state.apply(.lost(through: Position(UInt64(i)), count: missing), at: .zero)
                    missing = 0
                }
                state.apply(journal[i], at: position)
            }
            if let next = ends.first, next.last == position {
                state.seal(next, queues: i % 2 == 0 ? queues(in: next) : nil)
            }
        }
    }

    /// The power fails, and these Records are damaged beyond use: the first in the journal is 0.
    mutating func losesPower(andRecords lost: Set<Int>) {
        journal.removeLast(journal.count - synced)
        restart(from: replayed(without: lost))
    }

    private mutating func restart(from state: consuming DurableState, countedOff: UInt64? = nil) {
        // The log ends with the last Record that is there.
        while elided.remove(UInt64(journal.count)) != nil { journal.removeLast() }
        elided = elided.filter { $0 <= UInt64(journal.count) }
        synced = journal.count
        let stoppedAt = now
        if let countedOff { now = now.advanced(byMilliseconds: countedOff + 1) }
        lastStart = (Position(UInt64(journal.count)), stoppedAt)
        inboxes = [:]
        closed = []
        paused = []
        uplinkCommands = [:]
        var effects: [Effect] = []
        gateway = Gateway(
            plan: plan, state: state, lastPosition: Position(UInt64(journal.count)), stoppedAt: stoppedAt,
            now: now, into: &effects)
        carryOut(effects)
    }

    mutating func handle(_ input: consuming Input) {
        var effects: [Effect] = []
        gateway.handle(input, at: now, into: &effects)
        carryOut(effects)
    }

    private mutating func carryOut(_ effects: [Effect]) {
        var answers: [Input] = []
        for effect in effects {
            switch effect {
            case .send(let connection, let packet): inboxes[connection, default: []].append(packet)
            case .close(let connection): closed.insert(connection)
            case .reading(let connection, let isReading):
                if isReading { paused.remove(connection) } else { paused.insert(connection) }
            case .packetSize(let connection, let bytesMax): packetBytesMax[connection] = bytesMax
            case .append(let record, let urgency):
                journal.append(record)
                lastUrgency = urgency
                if case .message = record { lastMessageUrgency = urgency }
            case .load(let session, let positions, let target):
                loads.append((session, positions))
                if answersLoads { answers.append(.storage(.loaded(session, load(positions, for: target)))) }
            case .index(let session, let stretch):
                indexings.append((session, stretch))
                if answersIndexes {
                    answers.append(.storage(.indexed(session, stretch, postings(session, stretch))))
                }
            case .elide(let position):
                guard elides, position.number > UInt64(synced) else { break }
                elided.insert(position.number)
                answers.append(.storage(.elided(position)))
            case .hasten(let position): hastened = max(hastened, position)
            case .uplink(let index, let command): uplinkCommands[index.number, default: []].append(command)
            case .report(let observation): observations.append(observation)
            }
        }
        for answer in answers { handle(answer) }
    }

    private func load(_ positions: [Position], for session: SessionID) -> [(Position, StoredMessage?)] {
        positions.map { position in
            guard !damaged.contains(position),
                case .message(let record) = journal[Int(position.number) - 1]
            else { return (position, nil) }
            return (position, StoredMessage(record, for: session))
        }
    }

    /// Where the messages with these payloads are.
    func positions(of texts: [String]) -> [Position] {
        journal.enumerated().compactMap { i, record in
            guard case .message(let message) = record else { return nil }
            let text = String(decoding: message.message.payload, as: UTF8.self)
            return texts.contains(text) ? Position(UInt64(i + 1)) : nil
        }
    }
}

extension Publish {
    /// A message of text, as tests write them.
    static func text(
        _ topic: String, _ payload: String = "x", qos: QoS = .atMostOnce, id: PacketIdentifier? = nil,
        retain: Bool = false, duplicate: Bool = false
    ) -> Publish {
        Publish(
            message: ApplicationMessage(topic: Array(topic.utf8), payload: Array(payload.utf8)), qos: qos,
            id: id,
            retain: retain, duplicate: duplicate)
    }

    var topic: String { String(decoding: message.topic, as: UTF8.self) }
    var text: String { String(decoding: message.payload, as: UTF8.self) }
}

extension Packet {
    var reasonString: String? {
        switch self {
        case .connack(let connack): connack.reasonString
        case .puback(let answer), .pubrec(let answer): answer.reasonString
        case .suback(let suback): suback.reasonString
        case .disconnect(let disconnect): disconnect.reasonString
        default: nil
        }
    }

    fileprivate var withoutReasonString: Packet {
        switch self {
        case .connack(var connack):
            connack.reasonString = nil
            return .connack(connack)
        case .puback(let answer): return .puback(Acknowledgement(answer.id, answer.reason))
        case .pubrec(let answer): return .pubrec(Acknowledgement(answer.id, answer.reason))
        case .suback(let suback): return .suback(Suback(id: suback.id, reasons: suback.reasons))
        case .disconnect(let disconnect): return .disconnect(Disconnect(disconnect.reason))
        default: return self
        }
    }

    /// What a subscriber that follows the specification answers; nil when nothing is due.
    var subscribersAnswer: Packet? {
        switch self {
        case .publish(let publish):
            switch (publish.qos, publish.id) {
            case (.atLeastOnce, let id?): .puback(Acknowledgement(id))
            case (.exactlyOnce, let id?): .pubrec(Acknowledgement(id))
            default: nil
            }
        case .pubrel(let pubrel): .pubcomp(Acknowledgement(pubrel.id))
        default: nil
        }
    }

    static func subscribe(
        _ filter: String, qos: QoS = .exactlyOnce, id: PacketIdentifier = 999, noLocal: Bool = false,
        retainAsPublished: Bool = false, retainHandling: RetainHandling = .sendOnSubscribe,
        identifier: UInt32? = nil
    ) -> Packet {
        guard let filter = TopicFilter(filter) else { preconditionFailure("not a Topic Filter: \(filter)") }
        let request = SubscriptionRequest(
            filter: filter, maximumQoS: qos, noLocal: noLocal, retainAsPublished: retainAsPublished,
            retainHandling: retainHandling)
        return .subscribe(Subscribe(id: id, requests: [request], subscriptionIdentifier: identifier))
    }

    static func unsubscribe(_ filter: String, id: PacketIdentifier = 998) -> Packet {
        guard let filter = TopicFilter(filter) else { preconditionFailure("not a Topic Filter: \(filter)") }
        return .unsubscribe(Unsubscribe(id: id, filters: [filter]))
    }
}

extension Will {
    /// A Will of text, as tests write them.
    static func text(
        _ topic: String, _ payload: String = "gone", qos: QoS = .atLeastOnce, retain: Bool = false,
        delay: UInt32 = 0
    ) -> Will {
        Will(
            message: ApplicationMessage(topic: Array(topic.utf8), payload: Array(payload.utf8)), qos: qos,
            retain: retain, delaySeconds: delay)
    }
}

extension [Packet] {
    /// The CONNACK among them.
    var connack: Connack? {
        for case .connack(let connack) in self { return connack }
        return nil
    }

    /// The Reason Codes of the SUBACK among them.
    var subackReasons: [ReasonCode]? {
        for case .suback(let suback) in self { return suback.reasons }
        return nil
    }

    /// The PUBLISH packets among them.
    var publishes: [Publish] { compactMap { if case .publish(let publish) = $0 { publish } else { nil } } }
}

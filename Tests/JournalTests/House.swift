import GatewayCore
import MQTT

@testable import Journal

/// A whole gateway on a fault disk: core and journal, joined as the host joins them, and clients that follow the
/// specification. Nothing moves by itself.
struct House: ~Copyable {
    private(set) var disk: FaultDisk
    private(set) var gateway: Gateway
    private(set) var journal: Journal
    private(set) var recovered: RecoveredLog
    private(set) var now: Instant
    /// What the clients know, over all lives.
    private(set) var ledger: Ledger
    /// Deliveries that were given up in this life because their bytes are damaged, by receiver.
    private(set) var damagedDeliveries: [SessionOwner: Int] = [:]

    private var connections: [String: ConnectionID] = [:]
    private var clients: [ConnectionID: String] = [:]
    private var inboxes: [ConnectionID: [Packet]] = [:]
    private var sent: [String: [PacketIdentifier: String]] = [:]
    private var nextConnection: UInt64 = 1
    private var nextIdentifier: UInt16 = 0
    private let plan: JournalPlan
    private var isCloudHere = false
    private var cloudInbox: [Packet] = []
    /// Which messages the cloud answers with an error.
    var cloudRefuses: (String) -> Bool = { $0.hasPrefix("no") }

    struct Ledger {
        var cloud = Cloud()
        /// How often the cloud took each message: at QoS 2 with PUBREL.
        var cloudHad: [String: Int] = [:]
        /// What the cloud has by a QoS 2 packet that is not released.
        var cloudHolds: [PacketIdentifier: String] = [:]
        /// The messages that each client is owed: their publisher saw the handshake to its end.
        var owed: [String: Set<String>] = [:]
        /// What each client has received and acknowledged.
        var had: [String: Set<String>] = [:]
        /// Where the journal has each message.
        var positions: [String: Position] = [:]
        /// Where it has that a client's Session began.
        var sessions: [String: Position] = [:]
        /// Of the last CONNACK.
        var sessionPresent: [String: Bool] = [:]
    }

    /// The cloud of the first uplink: its Session lasts over all lives. What it has is under "cloud" in the ledger.
    struct Cloud {
        var hasSession = false
        /// PUBREC'd and not released.
        var held: Set<PacketIdentifier> = []
        /// What was published there, in order.
        var got: [String] = []
    }

    static func plan() -> JournalPlan {
        var plan = JournalPlan()
        plan.segmentBytes = 20 << 10
        plan.batchBytesMax = 12 << 10
        plan.checkpointGrowthBytes = 64 << 10
        plan.checkpointGrowthFactor = 1
        plan.commits.windowMilliseconds = 0
        plan.reserveBytes = 8 << 10
        return plan
    }

    /// Starts on what the disk holds, as `DiskStore` and the command do.
    static func starting(
        on disk: FaultDisk, ledger: Ledger = Ledger(), plan: JournalPlan = plan(),
        gateway: GatewayPlan = GatewayPlan()
    ) throws -> House {
        var disk = disk
        var state = DurableState(limits: gateway.limits)
        var recovered = try Recovery.recover(&disk) {
            state.apply($0, at: $1)
        } sealed: {
            state.seal($0, queues: $1)
        }
        for name in recovered.report.unfinished + recovered.report.setAside { disk.remove(name) }
        if recovered.report.formatIsDamaged {
            disk.put("FORMAT", StoreFormat(store: recovered.store, createdWallMilliseconds: 0).encoded)
        }
        recovered.recycles = true
        var house = House(disk, recovered, state, ledger, plan, gateway)
        try house.settle()
        return house
    }

    private init(
        _ disk: FaultDisk, _ recovered: RecoveredLog, _ state: consuming DurableState, _ ledger: Ledger,
        _ plan: JournalPlan, _ gatewayPlan: GatewayPlan
    ) {
        self.disk = disk
        self.plan = plan
        self.ledger = ledger
        self.recovered = recovered
        now = max(recovered.clock, Instant(milliseconds: 1000))
        journal = Journal(plan: plan, recovered: recovered)
        var effects: [Effect] = []
        gateway = Gateway(
            plan: gatewayPlan, state: state, lastPosition: recovered.last, stoppedAt: recovered.clock,
            now: now, into: &effects)
        carryOut(effects)
    }

    /// The process is killed, and another one finds what is on the disk.
    func restarted(with gatewayPlan: GatewayPlan? = nil) throws -> House {
        try .starting(on: disk, ledger: ledger, plan: plan, gateway: gatewayPlan ?? gateway.plan)
    }

    var estate: Estate { Estate(disk: disk, ledger: ledger) }

    // MARK: Clients

    /// - Parameter expiry: of the Session, in seconds.
    mutating func connects(_ client: String, expiry: UInt32 = .max, receiveMaximum: UInt16? = nil) throws {
        let id = ConnectionID(nextConnection)
        nextConnection += 1
        connections[client] = id
        clients[id] = client
        handle(.opened(id, listener: 0))
        handle(
            .received(
                id,
                .connect(
                    Connect(
                        version: .v5_0, clientIdentifier: client, cleanStart: false, keepAliveSeconds: 0,
                        sessionExpirySeconds: expiry, receiveMaximum: receiveMaximum))))
        try converse()
    }

    mutating func subscribes(_ client: String, _ filter: String, _ qos: QoS) throws {
        guard let filter = TopicFilter(filter) else { preconditionFailure("not a Topic Filter: \(filter)") }
        sends(
            client,
            .subscribe(Subscribe(id: 999, requests: [SubscriptionRequest(filter: filter, maximumQoS: qos)])))
        try converse()
    }

    mutating func leaves(_ client: String) throws {
        sends(client, .disconnect(Disconnect()))
        if let id = connections.removeValue(forKey: client) { handle(.closed(id)) }
        try settle()
    }

    /// Publishes; the receivers are owed it once the publisher has its acknowledgement.
    mutating func publishes(
        _ client: String, _ text: String, _ qos: QoS, topic: String = "t", padding: Int = 0, to: [String]
    ) throws {
        nextIdentifier = nextIdentifier % 900 + 1
        guard let id = PacketIdentifier(rawValue: nextIdentifier) else { preconditionFailure("zero") }
        sent[client, default: [:]][id] = text
        let payload = Array((text + " " + String(repeating: ".", count: padding)).utf8)
        sends(
            client,
            .publish(
                Publish(
                    message: ApplicationMessage(topic: Array(topic.utf8), payload: payload), qos: qos, id: id)
            ))
        try converse()
        if sent[client]?[id] == nil { for receiver in to { ledger.owed[receiver, default: []].insert(text) } }
    }

    private mutating func sends(_ client: String, _ packet: Packet) {
        guard let id = connections[client] else { return }
        handle(.received(id, packet))
    }

    /// Everybody answers whatever comes until nothing more does.
    mutating func converse() throws {
        var quietRounds = 0
        while quietRounds < 3 {
            try settle()
            let inboxes = self.inboxes
            let cloudInbox = self.cloudInbox
            self.inboxes = [:]
            self.cloudInbox = []
            for packet in cloudInbox where isCloudHere { answerFromCloud(packet) }
            if inboxes.isEmpty, cloudInbox.isEmpty {
                // What was too much for one round comes with the next.
                quietRounds += 1
                try passes(milliseconds: 1)
                continue
            }
            quietRounds = 0
            for (id, packets) in inboxes.sorted(by: { $0.key.number < $1.key.number }) {
                guard let client = clients[id], connections[client] == id else { continue }
                for packet in packets { answer(packet, client) }
            }
        }
    }

    private mutating func answer(_ packet: Packet, _ client: String) {
        switch packet {
        case .connack(let connack): ledger.sessionPresent[client] = connack.sessionPresent
        case .publish(let publish):
            let text = String(decoding: publish.message.payload.prefix { $0 != 32 }, as: UTF8.self)
            ledger.had[client, default: []].insert(text)
            guard let id = publish.id else { return }
            sends(
                client,
                publish.qos == .exactlyOnce ? .pubrec(Acknowledgement(id)) : .puback(Acknowledgement(id)))
        case .pubrel(let pubrel): sends(client, .pubcomp(Acknowledgement(pubrel.id)))
        case .pubrec(let answer) where answer.reason.rawValue < 0x80:
            sends(client, .pubrel(Acknowledgement(answer.id)))
        case .puback(let answer) where answer.reason.rawValue < 0x80: sent[client]?[answer.id] = nil
        case .pubcomp(let answer): sent[client]?[answer.id] = nil
        default: break
        }
    }

    // MARK: The cloud

    mutating func cloudConnects(sessionPresent: Bool) throws {
        ledger.cloud.hasSession = sessionPresent
        try cloudConnects()
    }

    mutating func cloudConnects(receiveMaximum: UInt16 = 100) throws {
        cloudVanishes()
        isCloudHere = true
        let terms = UplinkTerms(
            version: .v5_0, sessionPresent: ledger.cloud.hasSession, receiveMaximum: receiveMaximum)
        ledger.cloud.hasSession = true
        handle(.uplink(UplinkIndex(0), .connected(terms)))
        try converse()
    }

    mutating func cloudVanishes() {
        guard isCloudHere else { return }
        isCloudHere = false
        cloudInbox = []
        handle(.uplink(UplinkIndex(0), .disconnected))
    }

    mutating func reconfigures(_ plan: GatewayPlan) throws {
        handle(.reconfigured(plan))
        try converse()
    }

    private mutating func answerFromCloud(_ packet: Packet) {
        switch packet {
        case .publish(let publish):
            let text = String(decoding: publish.message.payload.prefix { $0 != 32 }, as: UTF8.self)
            let isRefused = cloudRefuses(text)
            let isNew =
                publish.qos < .exactlyOnce
                || publish.id.map { !isRefused && ledger.cloud.held.insert($0).inserted } ?? false
            if isNew, !isRefused {
                ledger.cloud.got.append(text)
                ledger.had["cloud", default: []].insert(text)
            }
            guard let id = publish.id else { return }
            if !isRefused, publish.qos == .exactlyOnce { ledger.cloudHolds[id] = text }
            if !isRefused, publish.qos == .atLeastOnce { ledger.cloudHad[text, default: 0] += 1 }
            let answer = Acknowledgement(id, isRefused ? .quotaExceeded : .success)
            cloudSends(publish.qos == .exactlyOnce ? .pubrec(answer) : .puback(answer))
        case .pubrel(let pubrel):
            ledger.cloud.held.remove(pubrel.id)
            if let text = ledger.cloudHolds.removeValue(forKey: pubrel.id) {
                ledger.cloudHad[text, default: 0] += 1
            }
            cloudSends(.pubcomp(Acknowledgement(pubrel.id)))
        default: break
        }
    }

    /// - Returns: how many will go.
    mutating func replaysDeadLetters() throws -> Int {
        var effects: [Effect] = []
        let count = gateway.replayDeadLetters(uplink: "cloud", numbers: nil, at: now, into: &effects)
        carryOut(effects)
        try converse()
        return count
    }

    private mutating func cloudSends(_ packet: Packet) {
        handle(.uplink(UplinkIndex(0), .received(packet)))
    }

    // MARK: Time and disk

    mutating func passes(milliseconds: UInt64) throws {
        now = now.advanced(byMilliseconds: milliseconds)
        handle(.deadline)
        try settle()
    }

    mutating func checkpoints() throws {
        journal.beginCheckpoint(of: gateway.state, at: now)
        try settle()
    }

    /// The gateway ends in good order.
    mutating func stops() throws {
        handle(.stop)
        for id in connections.values { handle(.closed(id)) }
        try settle()
        journal.beginCheckpoint(of: gateway.state, at: now)
        journal.close(at: now)
        try settle()
    }

    /// What happens to the disk beside what the gateway does.
    mutating func change(_ body: (inout FaultDisk) -> Void) { body(&disk) }

    /// Until nothing is to be done now.
    mutating func settle() throws {
        while true {
            journal.tick(at: now)
            var events: [StorageEvent] = []
            journal.takeEvents(into: &events)
            for event in events { handle(.storage(event)) }
            if journal.wantsRecord {
                var effects: [Effect] = []
                gateway.markTime(into: &effects)
                carryOut(effects)
            }
            journal.beginWantedCheckpoint(of: gateway.state, at: now)
            if journal.wantsCompaction { journal.compact(by: gateway.state, at: now) }
            journal.tick(at: now)
            var operations: [DiskOperation] = []
            journal.takeOperations(into: &operations)
            if events.isEmpty, operations.isEmpty { return }
            for operation in operations { journal.completed(try disk.perform(operation), at: now) }
        }
    }

    private mutating func handle(_ input: Input) {
        var effects: [Effect] = []
        gateway.handle(input, at: now, into: &effects)
        carryOut(effects)
    }

    private mutating func carryOut(_ effects: [Effect]) {
        for effect in effects {
            switch effect {
            case .send(let id, let packet): inboxes[id, default: []].append(packet)
            case .append(let record, let urgency): note(record, at: journal.append(record, urgency, at: now))
            case .load(let session, let positions, let target):
                journal.load(session, positions, target: target)
            case .index(let session, let stretch): journal.index(session, stretch)
            case .elide(let position): journal.elide(position, at: now)
            case .hasten(let position): journal.hasten(position, at: now)
            case .report(.dropped(let owner, .damaged, let count)):
                damagedDeliveries[owner, default: 0] += count
            case .uplink(_, .send(let packet)): cloudInbox.append(packet)
            case .uplink(_, .open(cleanStart: true)): ledger.cloud = Cloud()
            case .close, .reading, .packetSize, .uplink, .report: break
            }
        }
    }

    private mutating func note(_ record: Record, at position: Position) {
        switch record {
        case .message(let message):
            let text = String(decoding: message.message.payload.prefix { $0 != 32 }, as: UTF8.self)
            ledger.positions[text] = position
        case .sessionOpened(let opened):
            guard case .client(let name) = opened.owner else { return }
            ledger.sessions[name] = ledger.sessions[name] ?? position
        default: break
        }
    }
}

/// What a house leaves to the next one.
struct Estate {
    var disk: FaultDisk
    var ledger: House.Ledger
}

/// Where the batches of a store stand.
struct BatchMap {
    struct Batch {
        let file: String
        /// Without padding.
        let bytes: Range<Int>
        /// With it.
        let pages: Range<Int>
        let positions: ClosedRange<UInt64>
    }

    private(set) var batches: [Batch] = []

    init(_ disk: FaultDisk, _ store: StoreID) {
        for name in disk.fileNames() {
            let id: UInt64
            switch StoreFile(name: name) {
            case .segment(let number), .merged(let number): id = number
            case .format, .checkpoint, .free, .mergedPart, .reserve, nil: continue
            }
            let bytes = disk.content(name)
            for offset in stride(from: pageBytes, to: bytes.count, by: pageBytes) {
                guard
                    let header = try? BatchHeader(
                        decoding: bytes, at: offset, offset: offset, store: store, segment: id),
                    header.recordCount > 0
                else { continue }
                let size = BatchHeader.size + Int(header.payloadLength)
                batches.append(
                    Batch(
                        file: name, bytes: offset..<offset + size,
                        pages: offset..<offset + header.totalLength,
                        positions: header.first.number...header.last.number))
            }
        }
    }

    /// The last position in any batch.
    var last: UInt64 { batches.map(\.positions.upperBound).max() ?? 0 }

    /// The Records of batches that have bytes in `range` of `file`.
    func positions(in range: Range<Int>, of file: String) -> Set<UInt64> {
        Set(batches.filter { $0.file == file && $0.bytes.overlaps(range) }.flatMap(\.positions))
    }

    /// The Records of batches that have nothing but padding there.
    func positions(paddedIn range: Range<Int>, of file: String) -> Set<UInt64> {
        Set(batches.filter { $0.file == file && $0.pages.overlaps(range) }.flatMap(\.positions))
            .subtracting(positions(in: range, of: file))
    }
}

import GatewayCore
import MQTT
import Uplink

@testable import Simulation

/// Simulated clients and a simulated cloud around the real core, ledger and engine, with no disk and no network: every
/// Record is durable at once, and links carry at once, though they may be cut at any byte. What is tried here is the
/// peers.
struct PeerBench: ~Copyable {
    private(set) var now: UInt64 = 1_000_000
    private var gateway: Gateway
    private let routes: GatewayPlan
    private let plan: UplinkPlan
    private var records: [Record] = []
    private var inputs: [Input] = []

    private(set) var clients: [SimulatedClient]
    private(set) var cloud: SimulatedCloud
    private var links: [Link]
    private var nextConnection: UInt64 = 1
    private var conversation: Conversation?
    private var isAnnounced = false
    /// What the core wants of the next connection to the cloud; nil when it wants none.
    private var cleanStart: Bool?
    private var callsCloudAt: UInt64 = 0
    var dice: Dice
    /// Out of so many exchanges of bytes one is cut short, and the connection with it; 0 for none.
    var cutsOneIn = 0
    private(set) var cuts = 0
    private(set) var powerCuts = 0

    /// Who did what: a client's place, or the number of clients for the cloud.
    private(set) var events: [(peer: Int, at: UInt64, event: PeerEvent)] = []
    private(set) var oracle: Oracle

    private struct Link {
        var connection: ConnectionID?
        var decoder: PacketDecoder?
        var version = ProtocolVersion.v5_0
    }

    init(clients: [ClientPlan], cloud: CloudPlan, seed: UInt64) {
        dice = Dice(seed)
        var routes = GatewayPlan()
        routes.uplinks = [
            UplinkRoutes(name: "cloud", out: [Self.route("up/#")], in: [Self.route("down/#")])
        ]
        self.routes = routes
        plan = UplinkPlan(
            name: "cloud", addresses: [UplinkAddress(host: "", port: 1)], clientIdentifier: "gw",
            version: cloud.version, keepAliveSeconds: 0,
            subscriptions: [.init(Self.filter("down/#"), .exactlyOnce)])
        var dice = dice
        self.clients = clients.map { SimulatedClient($0, dice: dice.fork()) }
        self.cloud = SimulatedCloud(cloud, dice: dice.fork())
        links = clients.map { _ in Link() }
        var rules = OracleRules(clients: clients, cloud: cloud)
        (rules.out, rules.in) = (routes.uplinks[0].out, routes.uplinks[0].in)
        oracle = Oracle(rules)
        var effects: [Effect] = []
        gateway = Gateway(
            plan: routes, state: DurableState(), lastPosition: .zero, now: Instant(milliseconds: 1000),
            into: &effects)
        carryOut(effects)
    }

    static func filter(_ text: String) -> TopicFilter {
        guard let filter = TopicFilter(text) else { preconditionFailure("\(text) is no Topic Filter") }
        return filter
    }

    private static func route(_ filter: String) -> UplinkRoutes.Route {
        UplinkRoutes.Route(filter: Self.filter(filter), rename: nil, maximumQoS: .exactlyOnce)
    }

    var isAtRest: Bool { clients.allSatisfy(\.isAtRest) && cloud.isAtRest }
    /// Who is not at rest.
    var restless: [String] {
        clients.filter { !$0.isAtRest }.map { "\($0.plan.identifier): \($0.unfinished)" }
            + (cloud.isAtRest ? [] : ["the cloud"])
    }
    var balance: Balance { gateway.state.balance }

    // MARK: Time

    mutating func runs(seconds: Double) {
        let end = now + UInt64(seconds * 1_000_000)
        settleAll()
        while let next = nextMoment, next <= end {
            now = max(now, next)
            for i in clients.indices where (clients[i].nextWake ?? .max) <= now { clients[i].wake(at: now) }
            if (cloud.nextWake ?? .max) <= now { cloud.wake(at: now) }
            inputs.append(.deadline)
            settleAll()
        }
        now = end
    }

    /// - Returns: whether everybody came to rest, for a second.
    mutating func settles(withinSeconds seconds: Double) -> Bool {
        cutsOneIn = 0
        for i in clients.indices { clients[i].settles() }
        cloud.settles()
        var restsFor = 0
        for _ in 0..<Int(seconds * 10) where restsFor < 10 {
            runs(seconds: 0.1)
            restsFor = isAtRest ? restsFor + 1 : 0
        }
        return restsFor == 10
    }

    private var nextMoment: UInt64? {
        var next = gateway.nextDeadline.map {
            UInt64($0.milliseconds(since: Instant(milliseconds: 0))) * 1000
        }
        let wakes = clients.map(\.nextWake) + [cloud.nextWake, conversation == nil ? callsCloudAt : nil]
        for case .some(let wake) in wakes where wake < next ?? .max { next = wake }
        return next.map { max($0, now + 1) }
    }

    /// Lets everything pass that is on its way.
    private mutating func settleAll() {
        listen()
        defer { listen() }
        var moved = true
        while moved {
            moved = false
            settleCore()
            for i in clients.indices { moved = exchange(i) || moved }
            moved = exchangeWithCloud() || moved
        }
    }

    /// The oracle hears of everything at once: nothing is received before it was sent.
    private mutating func listen() {
        for i in clients.indices {
            for event in clients[i].takeEvents() { note(event, by: i) }
        }
        for event in cloud.takeEvents() { note(event, by: clients.count) }
    }

    private mutating func note(_ event: PeerEvent, by peer: Int) {
        events.append((peer, now, event))
        oracle.saw(event, by: peer, at: now)
    }

    /// What was wrong, all that is missing included.
    mutating func verdict() -> [String] {
        var end = Oracle.End()
        let letters = gateway.state.sessionIDs.filter {
            if case .deadLetters = gateway.state[$0]?.owner { true } else { false }
        }
        for case .message(let record) in records
        where record.targets.contains(where: { letters.contains($0.session) }) {
            if let name = MessageName(payload: record.message.payload) { end.deadLetters.append(name) }
        }
        return oracle.finish(end, at: now)
    }

    private mutating func isCut() -> Bool {
        guard cutsOneIn > 0, dice.below(cutsOneIn) == 0 else { return false }
        cuts += 1
        return true
    }

    // MARK: Clients

    private mutating func exchange(_ i: Int) -> Bool {
        if clients[i].wantsLink, links[i].connection == nil {
            let id = ConnectionID(nextConnection)
            nextConnection += 1
            links[i] = Link(
                connection: id,
                decoder: PacketDecoder(receiver: .server, version: nil, maximumPacketSize: 1 << 20))
            inputs.append(.opened(id, listener: 0))
            clients[i].linkOpened(at: now)
        }
        guard let id = links[i].connection else { return false }
        var bytes = clients[i].takeOutput()
        listen()
        let isCut = !bytes.isEmpty && isCut()
        if isCut { bytes.removeLast(dice.below(bytes.count)) }
        bytes.withUnsafeBytes { links[i].decoder?.append($0) }
        do throws(MalformedPacket) {
            while let packet = try links[i].decoder?.next() { inputs.append(.received(id, packet)) }
        } catch {
            inputs.append(.malformed(id, error, in: links[i].decoder?.version))
        }
        links[i].version = links[i].decoder?.version ?? .v5_0
        if isCut || clients[i].wantsClose {
            settleCore()
            if !isCut { oracle.heardOut(i, at: now) }
            links[i] = Link()
            inputs.append(.closed(id))
            clients[i].linkLost(at: now)
        }
        return !bytes.isEmpty || isCut
    }

    private mutating func send(_ packet: Packet, on id: ConnectionID) {
        guard let i = links.firstIndex(where: { $0.connection == id }) else { return }
        var bytes: [UInt8] = []
        packet.encode(version: links[i].decoder?.version ?? links[i].version, into: &bytes)
        let cut = isCut()
        if cut { bytes.removeLast(dice.below(bytes.count)) }
        clients[i].received(bytes, at: now)
        listen()
        guard cut else { return }
        links[i] = Link()
        inputs.append(.closed(id))
        clients[i].linkLost(at: now)
    }

    // MARK: The cloud

    private mutating func exchangeWithCloud() -> Bool {
        if conversation == nil, let clean = cleanStart, now >= callsCloudAt, cloud.wantsLink {
            let opening: UplinkOpening =
                !clean ? .resume(asBridge: false) : plan.version == .v5_0 ? .clean : .sweep(asBridge: false)
            do { conversation = try Conversation(plan: plan, opening: opening, now: 0) } catch {
                preconditionFailure("no engine: \(error)")
            }
            cloud.linkOpened(at: now)
        }
        guard let conversation else { return false }
        conversation.flush()
        let up = conversation.takeWireBytes()
        cloud.received(up, at: now)
        let down = cloud.takeOutput()
        listen()
        let cut = !up.isEmpty && isCut()
        if !cut { down.withUnsafeBytes { conversation.received($0) } }
        let events = conversation.takeEvents()
        for event in events {
            if case .connected = event {
                isAnnounced = true
                cleanStart = false
            }
            inputs.append(.uplink(UplinkIndex(0), event))
        }
        if cut || cloud.wantsClose || conversation.ending != nil {
            if conversation.ending == .swept { cleanStart = false }
            loseCloud()
            return true
        }
        return !up.isEmpty || !down.isEmpty || !events.isEmpty
    }

    private mutating func loseCloud() {
        guard conversation != nil else { return }
        conversation = nil
        callsCloudAt = now + 200_000
        cloud.linkLost(at: now)
        if isAnnounced {
            isAnnounced = false
            inputs.append(.uplink(UplinkIndex(0), .disconnected))
        }
    }

    // MARK: The core

    /// The gateway dies, and another finds all that it recorded.
    mutating func powerFails() {
        powerCuts += 1
        settleAll()
        for i in clients.indices where links[i].connection != nil {
            links[i] = Link()
            clients[i].linkLost(at: now)
        }
        loseCloud()
        listen()
        oracle.allIsDurable()
        oracle.powerFailed(at: now)
        inputs = []
        cleanStart = nil
        var state = DurableState()
        for (i, record) in records.enumerated() { state.apply(record, at: Position(UInt64(i + 1))) }
        var effects: [Effect] = []
        gateway = Gateway(
            plan: routes, state: state, lastPosition: Position(UInt64(records.count)),
            now: Instant(milliseconds: now / 1000), into: &effects)
        carryOut(effects)
        settleAll()
    }

    private mutating func settleCore() {
        while !inputs.isEmpty {
            let input = inputs.removeFirst()
            var effects: [Effect] = []
            gateway.handle(input, at: Instant(milliseconds: now / 1000), into: &effects)
            carryOut(effects)
        }
    }

    private mutating func carryOut(_ effects: [Effect]) {
        let before = records.count
        for effect in effects {
            switch effect {
            case .append(let record, _): records.append(record)
            case .send(let id, let packet): send(packet, on: id)
            case .close(let id):
                if let i = links.firstIndex(where: { $0.connection == id }) {
                    links[i] = Link()
                    clients[i].linkLost(at: now)
                }
                inputs.append(.closed(id))
            case .uplink(_, .open(let cleanStart)): self.cleanStart = cleanStart
            case .uplink(_, .send(let packet)): conversation?.perform(packet)
            case .uplink(_, .subscribe): conversation?.subscribe()
            case .uplink(_, .reconnect): loseCloud()
            case .load(let session, let positions, let target):
                inputs.append(.storage(.loaded(session, positions.map { ($0, message($0, for: target)) })))
            // Everything is on disk already, and everybody is read.
            case .uplink(_, .close), .elide, .hasten, .index, .reading, .packetSize, .report: break
            }
        }
        if records.count > before {
            inputs.append(.storage(.durable(upTo: Position(UInt64(records.count)))))
        }
    }

    private func message(_ position: Position, for session: SessionID) -> StoredMessage? {
        guard case .message(let record) = records[Int(position.number) - 1] else { return nil }
        return StoredMessage(record, for: session)
    }
}

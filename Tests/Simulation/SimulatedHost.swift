import GatewayCore
import Journal
import MQTT
import Uplink

/// What the gateway is given when it starts.
struct HostPlan {
    var gateway: GatewayPlan
    var journal: JournalPlan
    var uplinks: [UplinkPlan]
    /// Bytes of a packet from a client.
    var packetBytesMax: Int { Int(gateway.limits.packetBytesMax) }
}

/// One life of the gateway's process: the real core, journal, codec and uplink conversation, joined as the command, the
/// transport and the uplink's link join them, with nothing below them that is real.
///
/// It is called with what happens and says what is to be done; it never waits.
final class SimulatedHost {
    /// What the world is to do, in order.
    enum Action {
        case send(UInt64, [UInt8])
        /// Behind what was sent.
        case close(UInt64)
        case cut(UInt64)
        case disk([DiskOperation])
        case dial(UplinkIndex, after: UInt64)
        case sendUp(UplinkIndex, [UInt8])
        case hangUp(UplinkIndex)
        case observed(Observation)
        /// For people; only of a host that tells.
        case said(String)
    }

    private(set) var gateway: Gateway
    private(set) var journal: Journal
    private var witness: WallWitness
    private let startedAt: Instant
    private let uptimeAtStart: UInt64
    private var provenAt = Position.zero
    private var hadEvidence = false
    private var stampAskedAt = Instant(milliseconds: 0)

    private let plan: HostPlan
    private var connections: [UInt64: Client] = [:]
    /// In the order in which they were written to.
    private var unflushed: [UInt64] = []
    private var resuming: [UInt64] = []
    private var uplinks: [SimulatedUplink]
    private var actions: [Action] = []
    private var effects: [Effect]
    private var events: [StorageEvent] = []
    private var operations: [DiskOperation] = []
    /// Of the logical clock; each entry sets it.
    private var now: Instant
    private var isClosing = false
    /// Whether it tells of Records one by one.
    var isTalkative = false
    /// Of this life, for the bound of what the flash is given.
    private(set) var appendedRecords = 0
    private(set) var elided = 0
    private var watch: CommitWatch
    private var identifiers: IdentifierWatch
    private var acknowledgements: AcknowledgementWatch
    /// Whose packet is being taken.
    private var speaking: UInt64?
    /// What is wrong with how its Records are written, and what leaves before them.
    var violations: [String] { watch.violations + identifiers.violations + acknowledgements.violations }

    private struct Client {
        var decoder: PacketDecoder
        var isPaused = false
        var isRefused = false
        var isClosing = false
        /// The network has lost it; what came before is still to be told.
        var isGone = false
        var output: [UInt8] = []
    }

    /// - Parameters:
    ///   - state: what recovery made of the disk.
    ///   - uptime: CLOCK_BOOTTIME.
    init(
        plan: HostPlan, recovered: RecoveredLog, state: consuming DurableState, clocks: Clocks,
        trueTime: UInt64,
        dice: Dice
    ) {
        self.plan = plan
        uptimeAtStart = clocks.uptimeMilliseconds(at: trueTime)
        let resumed = recovered.resume(on: clocks.machineBoot, uptimeMilliseconds: uptimeAtStart)
        startedAt = resumed.clock
        now = resumed.clock
        var effects: [Effect] = []
        gateway = Gateway(
            plan: plan.gateway, state: state, lastPosition: recovered.last, stoppedAt: recovered.clock,
            now: resumed.clock, into: &effects)
        self.effects = effects
        journal = Journal(plan: plan.journal, recovered: recovered, resumed: resumed)
        watch = CommitWatch(plan.journal, startedAt: resumed.clock, behind: recovered.last)
        identifiers = IdentifierWatch(span: plan.gateway.limits.identifierSpan)
        acknowledgements = AcknowledgementWatch(plan.gateway.limits)
        witness = WallWitness(anchor: recovered.anchor, unproven: resumed.unproven)
        var dice = dice
        uplinks = plan.uplinks.map { SimulatedUplink(plan: $0, dice: dice.fork()) }
    }

    // MARK: What the world asks

    func takeActions() -> [Action] {
        defer { actions = [] }
        return actions
    }

    /// The next moment of the logical clock at which `deadline` has something to do.
    var nextDeadline: Instant? { [gateway.nextDeadline, journal.nextDeadline].compactMap { $0 }.min() }
    var clock: Instant { now }
    var isServing: Bool { !isClosing }
    /// Nothing waits for the disk.
    var isAllDurable: Bool { journal.durable >= gateway.lastPosition }
    /// Whether it hears that connection yet.
    func knows(_ connection: UInt64) -> Bool { connections[connection]?.isClosing == false }
    var isClosed: Bool { journal.isClosed }
    /// It was asked to end, and the disk does not let it do so in good order.
    private(set) var cannotClose = false

    // MARK: What happens

    /// Everything below is called inside: it tells the time before and ends the round after.
    func at(_ clocks: Clocks, _ trueTime: UInt64, _ body: () -> Void) {
        let uptime = clocks.uptimeMilliseconds(at: trueTime)
        now = max(now, startedAt.advanced(byMilliseconds: uptime - min(uptime, uptimeAtStart)))
        body()
        settle(uptime)
    }

    /// The first round: what recovery left to be done.
    func start() { carryOut() }

    func opened(_ number: UInt64) {
        connections[number] = Client(
            decoder: PacketDecoder(receiver: .server, version: nil, maximumPacketSize: plan.packetBytesMax))
        take(.opened(ConnectionID(number), listener: 0))
    }

    func received(_ number: UInt64, _ bytes: [UInt8]) {
        guard let client = connections[number], !client.isRefused, !client.isClosing else { return }
        bytes.withUnsafeBytes { connections[number]?.decoder.append($0) }
        deliver(number)
    }

    /// The connection is gone.
    func lost(_ number: UInt64) {
        guard let client = connections[number] else { return }
        guard !client.isRefused, !client.isClosing, client.decoder.bufferedBytes > 0 else {
            return finish(number)
        }
        connections[number]?.isGone = true
        // Nobody waits any more to be read, but what came before the end is told before it.
        connections[number]?.isPaused = false
        resuming.append(number)
    }

    func writability(_ number: UInt64, _ isWritable: Bool) {
        guard let client = connections[number], !client.isClosing, !client.isGone else { return }
        take(.writability(ConnectionID(number), isWritable))
    }

    func completed(_ completion: DiskCompletion) {
        watch.completed(completion)
        journal.completed(completion, at: now)
    }

    func deadline() { take(.deadline) }

    /// Once a second: evidence of the wall clock, and the uplinks' own clocks.
    func second(_ reading: WallReading) {
        take(.traffic(bytesReceived: 0, bytesSent: 0))
        hearWallClock(reading)
        acknowledgements.looks(at: gateway.state)
        for i in uplinks.indices { uplinks[i].isTicking = true }
    }

    /// The process is asked to end.
    func stop() {
        take(.stop)
        for i in uplinks.indices {
            uplinks[i].perform(.close)
            run(UplinkIndex(i), 0)
        }
        for number in connections.keys.sorted() { finish(number) }
        isClosing = true
        journal.beginCheckpoint(of: gateway.state, at: now)
        journal.close(at: now)
    }

    func uplinkReady(_ index: UplinkIndex) { uplinks[index.number].isReady = true }
    func uplinkFailed(_ index: UplinkIndex) { uplinks[index.number].fails(.unreachable("refused")) }
    func uplinkReceived(_ index: UplinkIndex, _ bytes: [UInt8]) { uplinks[index.number].received(bytes) }
    func uplinkLost(_ index: UplinkIndex) { uplinks[index.number].lose(.closed) }
    func uplinkWritability(_ index: UplinkIndex, _ isWritable: Bool) {
        uplinks[index.number].writability(isWritable)
    }

    // MARK: Connections

    private func deliver(_ number: UInt64) {
        do throws(MalformedPacket) {
            while let client = connections[number], !client.isClosing, !client.isRefused, !client.isPaused,
                let packet = try connections[number]?.decoder.next() ?? nil
            {
                take(.received(ConnectionID(number), packet))
            }
        } catch {
            connections[number]?.isRefused = true
            take(.malformed(ConnectionID(number), error, in: connections[number]?.decoder.version))
        }
    }

    private func resume(_ number: UInt64) {
        deliver(number)
        guard let client = connections[number], client.isGone, !client.isPaused else { return }
        finish(number)
    }

    private func finish(_ number: UInt64) {
        guard connections.removeValue(forKey: number) != nil else { return }
        take(.closed(ConnectionID(number)))
    }

    private func close(_ number: UInt64) {
        guard let client = connections[number], !client.isClosing else { return }
        connections[number]?.isClosing = true
        if client.isGone { return finish(number) }
        flush(number)
        actions.append(.close(number))
    }

    private func flush(_ number: UInt64) {
        guard let output = connections[number]?.output, !output.isEmpty else { return }
        connections[number]?.output = []
        actions.append(.send(number, output))
    }

    private func send(_ number: UInt64, _ packet: Packet) {
        guard let client = connections[number], !client.isClosing, !client.isGone else { return }
        if client.output.isEmpty { unflushed.append(number) }
        // A client that never got as far as naming a version is answered in the oldest that has reasons.
        packet.encode(
            version: client.decoder.version ?? .v3_1_1, into: &connections[number, default: client].output)
    }

    // MARK: The round

    private func take(_ input: consuming Input) {
        guard !isClosing else { return }
        switch input {
        case .received(let connection, let packet):
            speaking = connection.number
            watch.hears(packet, from: .client(connection: connection.number))
        case .uplink(let index, .received(let packet)): watch.hears(packet, from: .cloud(index.number))
        default: break
        }
        gateway.handle(input, at: now, into: &effects)
        carryOut()
        watch.hasHeard()
        speaking = nil
    }

    private func carryOut() {
        let list = effects
        effects = []
        for effect in list {
            switch effect {
            case .send(let connection, let packet):
                watch.says(packet, to: .client(connection: connection.number))
                if case .publish(let publish) = packet { identifiers.sends(publish, on: connection.number) }
                send(connection.number, packet)
            case .close(let connection): close(connection.number)
            case .reading(let connection, let reads):
                let number = connection.number
                guard connections[number]?.isPaused == reads, connections[number]?.isGone == false else {
                    continue
                }
                connections[number]?.isPaused = !reads
                if reads { resuming.append(number) }
            case .packetSize(let connection, let bytesMax):
                connections[connection.number]?.decoder.maximumPacketSize = Int(bytesMax)
            case .append(let record, let urgency):
                appendedRecords += 1
                watch.appended(record, urgency, at: now) { session in
                    if case .client = gateway.state[session]?.owner { true } else { false }
                }
                let position = journal.append(record, urgency, at: now)
                identifiers.appended(record, at: position, on: speaking)
                acknowledgements.appended(record)
                if isTalkative { actions.append(.said("record \(position.number), \(urgency): \(record)")) }
            case .load(let session, let positions, let target):
                journal.load(session, positions, target: target)
            case .index(let session, let stretch): journal.index(session, stretch)
            case .elide(let position):
                if isTalkative { actions.append(.said("elide \(position.number)")) }
                journal.elide(position, at: now)
            case .hasten(let position):
                watch.hastens(position)
                if isTalkative { actions.append(.said("hasten \(position.number)")) }
                journal.hasten(position, at: now)
            case .uplink(let index, let command):
                if case .send(let packet) = command { watch.says(packet, to: .cloud(index.number)) }
                uplinks[index.number].perform(command)
            case .report(let observation): actions.append(.observed(observation))
            }
        }
    }

    /// Until nothing follows from anything any more.
    private func settle(_ uptime: UInt64) {
        repeat {
            settleStorage()
            while !resuming.isEmpty { resume(resuming.removeFirst()) }
            if !isClosing { for i in uplinks.indices { run(UplinkIndex(i), uptime) } }
        } while !resuming.isEmpty || !isClosing && uplinks.contains { $0.hasEvents }
        settleStorage()
        journal.takeOperations(into: &operations)
        if !isClosing { watch.roundEnded(operations, at: now) }
        if !operations.isEmpty {
            actions.append(.disk(operations))
            operations.removeAll(keepingCapacity: true)
        }
        for number in unflushed { flush(number) }
        unflushed.removeAll(keepingCapacity: true)
    }

    private func settleStorage() {
        journal.tick(at: now)
        journal.takeEvents(into: &events)
        while !events.isEmpty {
            let told = events
            events.removeAll(keepingCapacity: true)
            for event in told {
                switch event {
                case .elided(let position):
                    elided += 1
                    identifiers.elided(position)
                case .durable(let position): identifiers.durable(upTo: position)
                default: break
                }
                watch.told(event)
                if isTalkative { actions.append(.said("storage: \(event)")) }
                if case .failed = event, isClosing { cannotClose = true }
                take(.storage(event))
            }
            journal.tick(at: now)
            journal.takeEvents(into: &events)
        }
        guard !isClosing else { return }
        if journal.wantsRecord {
            gateway.markTime(into: &effects)
            carryOut()
        }
        if journal.wantsCheckpoint {
            if isTalkative { tellCheckpoint() }
            journal.beginWantedCheckpoint(of: gateway.state, at: now)
        }
        if journal.wantsCompaction { journal.compact(by: gateway.state, at: now) }
    }

    /// For people: what a checkpoint would say that could not be read again.
    private func tellCheckpoint() {
        actions.append(.said("checkpoint of \(gateway.lastPosition.number)"))
        var words: [String] = []
        gateway.state.snapshot { record in
            var bytes: [UInt8] = []
            RecordCodec.encode(record, into: &bytes)
            do throws(DecodingError) {
                if try RecordCodec.decode(bytes) != record { words.append("reads otherwise: \(record)") }
            } catch { words.append("cannot be read (\(error)): \(record)") }
        }
        actions += words.map { .said($0) }
    }

    /// Lets an uplink work, and carries over what comes of it.
    private func run(_ index: UplinkIndex, _ uptime: UInt64) {
        let i = index.number
        uplinks[i].work(uptime)
        for event in uplinks[i].takeEvents() {
            uplinks[i].isHearing(event)
            take(.uplink(index, event))
        }
        uplinks[i].flush()
        for step in uplinks[i].takeSteps() {
            switch step {
            case .dial(let after): actions.append(.dial(index, after: after))
            case .send(let bytes): actions.append(.sendUp(index, bytes))
            case .hangUp: actions.append(.hangUp(index))
            }
        }
    }

    // MARK: Time

    private func hearWallClock(_ reading: WallReading) {
        guard !isClosing else { return }
        let counted = witness.anchorClock.map { gateway.state.offMilliseconds(since: $0) } ?? 0
        var isEvidenceDue = now.milliseconds(since: max(journal.stampedAt, stampAskedAt)) >= 600_000
        if let finding = witness.hear(reading, at: now, counted: counted), case .wasOff(let off) = finding {
            take(.wasOff(off))
            provenAt = gateway.lastPosition
        }
        take(.wallClock(milliseconds: witness.isBelieved ? reading.milliseconds : nil))
        journal.note(
            WallReading(milliseconds: reading.milliseconds, isTrusted: witness.isBelieved), at: now,
            provenAt: provenAt)
        if journal.hasEvidence, !hadEvidence { isEvidenceDue = true }
        hadEvidence = journal.hasEvidence
        guard isEvidenceDue else { return }
        stampAskedAt = now
        if gateway.state.countsTime {
            gateway.markTime(into: &effects)
            carryOut()
        }
    }
}

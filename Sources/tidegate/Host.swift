import Disk
import GatewayCore
import Journal
import MQTT
import NIOCore
import Operations
import Settings
import Transport
import Uplink

/// Carries values between the core, which decides, and the world: sockets, disk, cloud and log. It decides
/// nothing about MQTT.
///
/// Everything happens on one event loop. Neither the transport nor an uplink calls back while it is being
/// called, so that an input is handled to its end before the next one.
///
/// What changes with every packet is checked for overlapping accesses in debug builds only: the core and the journal
/// are values that call nobody, and no access to them is open while anything else is called.
final class Host: TransportDelegate {
    let loop: any EventLoop
    private let clock: LogicalClock
    #if !DEBUG
        @exclusivity(unchecked)  // Never open while anybody else is called.
    #endif
    private var gateway: Gateway
    #if !DEBUG
        @exclusivity(unchecked)  // Never open while anybody else is called.
    #endif
    private var journal: Journal
    private var witness: WallWitness
    /// What the wall clock proved is at this position.
    private var provenAt = Position.zero
    /// The wall clock could be kept as evidence when it was last heard.
    private var hadEvidence = false
    /// When it was last looked at whether the clock should be written down.
    private var stampAskedAt = Instant(milliseconds: 0)
    private let transport: Transport
    /// By `UplinkIndex`; one that is not in the settings any more keeps its place, closed.
    private var links: [UplinkLink] = []
    /// What each link was last told, by `UplinkIndex`.
    private var linkPlans: [UplinkPlan] = []
    /// As they run: what was read last, as far as it could be applied.
    var settings: Settings
    /// What was made of `settings.uplinks`.
    private(set) var uplinkPlans: [UplinkPlan]
    let settingsReader: SettingsReader
    private var control: ControlSocket?
    private var log: Log
    private let notifier: ServiceNotifier
    /// Hands operations to the disk's thread; answered by `completed`.
    private let submit: ([DiskOperation]) -> Void
    /// Ends the process with this status.
    private let end: (ExitStatus) -> Never

    /// Filled by the core and emptied by `carryOut`; kept for their memory.
    #if !DEBUG
        @exclusivity(unchecked)  // Never open while anybody else is called.
    #endif
    private var effects: [Effect] = []
    private var events: [StorageEvent] = []
    private var operations: [DiskOperation] = []

    private var isSettleScheduled = false
    private var isOverFlashBudget = false
    private var deadline: (at: Instant, task: Scheduled<Void>)?

    /// Whether the process ends when the disk fails, instead of serving what needs none.
    private var endsOnFailure: Bool { settings.journal.onFailure == .exit }

    private var phase = Phase.starting
    private enum Phase {
        case starting, serving
        /// Clients are told and closed.
        case disconnecting
        /// Nothing is handled any more; the journal writes its end.
        case closingJournal
    }

    /// Operations that the disk's thread has not answered.
    private var unanswered = 0
    /// Whether the disk was idle or answered something since the watchdog last looked.
    private var diskMadeProgress = true

    /// - Parameters:
    ///   - gateway: as recovery brought it back, with the effects of that.
    ///   - connectionsMax: of clients at once, whatever the settings allow.
    ///   - submit: called on the loop.
    init(
        loop: any EventLoop, clock: LogicalClock, gateway: consuming Gateway, effects: [Effect],
        journal: Journal, witness: WallWitness, settings: CheckedSettings, settingsReader: SettingsReader,
        connectionsMax: Int, log: consuming Log, notifier: consuming ServiceNotifier,
        submit: @escaping ([DiskOperation]) -> Void, end: @escaping (ExitStatus) -> Never
    ) {
        self.loop = loop
        self.clock = clock
        self.gateway = gateway
        self.effects = effects
        self.journal = journal
        self.witness = witness
        self.transport = Transport(
            plan: TransportPlan(settings.settings, connectionsMax: connectionsMax), loop: loop)
        self.settings = settings.settings
        self.uplinkPlans = settings.uplinks
        self.settingsReader = settingsReader
        self.log = log
        self.notifier = notifier
        self.submit = submit
        self.end = end
        for plan in settings.uplinks { addLink(plan) }
    }

    private func addLink(_ plan: UplinkPlan) {
        let index = UplinkIndex(links.count)
        let link = UplinkLink(
            plan: plan, index: index, eventLoop: loop,
            deliver: { index, event in
                self.take(.uplink(index, event))
                self.settleSoon()
            },
            log: { notice in
                self.log.write(LogLine(.notice, .uplink, "uplink \"\(plan.name)\": \(notice)"))
            })
        links.append(link)
        linkPlans.append(plan)
    }

    // MARK: Start

    /// Opens the listeners and says READY once clients can connect.
    func start() {
        transport.start(delegate: self).assumeIsolated().whenComplete { result in
            switch result {
            case .success(let addresses): self.started(addresses)
            case .failure(let error): self.fail("\(error)", .failed)
            }
        }
    }

    private func started(_ addresses: [SocketAddress]) {
        guard phase == .starting else { return }
        phase = .serving
        let places = addresses.map(\.listenerText).joined(separator: ", ")
        log.write(LogLine(.notice, .gateway, "serving MQTT on \(places)"))
        notifier.ready(status: "serving MQTT on \(places)")
        scheduleWatchdog()
        everySecond()
        carryOut(at: clock.now)
        settle()
        openControl()
    }

    // MARK: From the transport

    func opened(
        _ connection: ConnectionNumber, listener: Int, peer: SocketAddress?, certificate: PeerCertificate?
    ) {
        take(
            .opened(
                ConnectionID(connection), listener: listener,
                certificate: certificate.map {
                    CertificateNames(subject: $0.subject, issuer: $0.issuer)
                }))
    }

    func received(_ connection: ConnectionNumber, _ packet: consuming Packet) {
        take(.received(ConnectionID(connection), consume packet))
    }

    func malformed(_ connection: ConnectionNumber, _ error: MalformedPacket, in version: ProtocolVersion?) {
        take(.malformed(ConnectionID(connection), error, in: version))
    }

    func closed(_ connection: ConnectionNumber) { take(.closed(ConnectionID(connection))) }

    func writability(_ connection: ConnectionNumber, _ isWritable: Bool) {
        take(.writability(ConnectionID(connection), isWritable))
    }

    func readCycleEnded() { settle() }

    func trouble(_ trouble: TransportTrouble) { log.write(LogLine(trouble)) }

    // MARK: From the disk

    /// What the disk's thread has done; on the loop, one call for everything done since the last.
    func completed(_ completions: [DiskCompletion]) {
        unanswered -= completions.count
        diskMadeProgress = true
        let now = clock.now
        for completion in completions { journal.completed(completion, at: now) }
        settle()
        if phase == .closingJournal, journal.isClosed { finish() }
    }

    // MARK: The round

    /// One input through the core, and its effects into the world.
    private func take(_ input: consuming Input) {
        guard phase != .closingJournal else { return }
        let now = clock.now
        gateway.handle(input, at: now, into: &effects)
        carryOut(at: now)
    }

    /// Carries the core's effects out, in order.
    private func carryOut(at now: Instant) {
        // A list of our own: nobody calls back meanwhile, and that need not be checked for each effect.
        var effects: [Effect] = []
        swap(&effects, &self.effects)
        if effects.count == 1 {
            // As mostly: it leaves the list empty, and nothing has to be destroyed in its place.
            carryOut(effects.removeLast(), at: now)
        } else {
            for i in effects.indices {
                // Exchanged for one that is never carried out, each is moved out of the list and not copied.
                var effect = Effect.hasten(.zero)
                swap(&effect, &effects[i])
                carryOut(consume effect, at: now)
            }
        }
        precondition(self.effects.isEmpty, "effects cause no effects")
        // One that was numbered and is not in the journal yet would get the place of another.
        precondition(journal.last == gateway.lastPosition, "Records are appended in their order")
        guard effects.count <= Self.keptEffects else { return }
        if !effects.isEmpty { effects.removeAll(keepingCapacity: true) }
        swap(&effects, &self.effects)
    }

    private func carryOut(_ effect: consuming Effect, at now: Instant) {
        switch consume effect {
        case .send(let connection, let packet): transport.send(connection.number, packet)
        case .close(let connection): transport.close(connection.number)
        case .reading(let connection, let reads): transport.reading(connection.number, reads)
        case .packetSize(let connection, let bytesMax):
            transport.packetSize(connection.number, atMost: Int(bytesMax))
        case .append(let record, let urgency): _ = journal.append(record, urgency, at: now)
        case .load(let session, let positions, let target):
            journal.load(session, positions, target: target)
        case .index(let session, let stretch): journal.index(session, stretch)
        case .elide(let position): journal.elide(position, at: now)
        case .hasten(let position): journal.hasten(position, at: now)
        case .uplink(let index, let command): links[index.number].perform(command)
        case .report(let observation): report(observation)
        }
    }

    /// Effects for which memory is kept: as many as a batch of the journal lets go when it is busy.
    private static let keptEffects = 4096

    private func report(_ observation: Observation) {
        log.write(LogLine(observation))
        switch observation {
        case .storageFailed:
            if endsOnFailure { finish(.storageFailed) }
            notifier.status("serving QoS 0 only: the disk fails")
        case .storageRecovered:
            notifier.status("serving MQTT")
        case .connected, .refused, .disconnected, .sessionEnded, .subscriptionsRest, .dropped,
            .uplinkConnected,
            .uplinkDisconnected, .uplinkRemoved, .uplinkLacksQoS2, .deadLetter, .pressure, .stuck, .full,
            .drained, .wasOff:
            break
        }
    }

    /// Ends a round: what became durable is told to the core, what is due goes to the disk, and everybody who
    /// was sent something gets it in one write.
    private func settle() {
        let now = clock.now
        journal.tick(at: now)
        journal.takeEvents(into: &events)
        while !events.isEmpty {
            let told = events
            events.removeAll(keepingCapacity: true)
            for event in told {
                if phase == .closingJournal, case .failed = event { finish(.storageFailed) }
                take(.storage(event))
            }
            journal.tick(at: now)
            journal.takeEvents(into: &events)
        }
        if phase == .serving, journal.wantsRecord {
            gateway.markTime(into: &effects)
            carryOut(at: now)
        }
        if phase == .serving, journal.wantsCheckpoint {
            journal.beginWantedCheckpoint(of: gateway.state, at: now)
        }
        if phase == .serving, journal.wantsCompaction { journal.compact(by: gateway.state, at: now) }
        submitOperations()
        transport.flush()
        for link in links { link.flush() }
        scheduleDeadline(now)
    }

    private func submitOperations() {
        journal.takeOperations(into: &operations)
        guard !operations.isEmpty else { return }
        if unanswered == 0 { diskMadeProgress = true }
        unanswered += operations.count
        submit(operations)
        operations.removeAll(keepingCapacity: true)
    }

    /// Settles once the loop has nothing else at hand, however often it was asked to.
    private func settleSoon() {
        guard !isSettleScheduled else { return }
        isSettleScheduled = true
        loop.assumeIsolated().execute {
            self.isSettleScheduled = false
            self.settle()
        }
    }

    // MARK: Time

    /// One task of the loop for everything that has a deadline. It is moved only when something is due earlier:
    /// waking up too soon once costs less than moving it with every packet.
    private func scheduleDeadline(_ now: Instant) {
        guard let next = [gateway.nextDeadline, journal.nextDeadline].compactMap({ $0 }).min() else { return }
        if let deadline {
            guard next < deadline.at else { return }
            deadline.task.cancel()
        }
        let delay = TimeAmount.milliseconds(
            Int64(clamping: min(next.milliseconds(since: now), Self.longestSleep)))
        let task = loop.assumeIsolated().scheduleTask(in: delay) {
            self.deadline = nil
            self.take(.deadline)
            self.settle()
        }
        deadline = (next, task)
    }

    /// Milliseconds. The loop's own clock stands still while the machine is suspended, the gateway's does not.
    private static let longestSleep: UInt64 = 60_000

    /// What need not be exact: evidence of the wall clock for the journal, what the log held back, and how many
    /// bytes clients sent and were sent.
    private func everySecond() {
        take(.traffic(bytesReceived: transport.bytesReceived, bytesSent: transport.bytesSent))
        settleSoon()
        if phase == .serving { hearWallClock() }
        watchFlashBudget()
        log.flush(isEnd: false)
        loop.assumeIsolated().scheduleTask(in: .seconds(1)) { self.everySecond() }
    }

    /// Says when the flash was given more than a day's share, and when that is over.
    private func watchFlashBudget() {
        let isOver = journal.isOverFlashBudget
        guard isOver != isOverFlashBudget else { return }
        isOverFlashBudget = isOver
        log.write(
            isOver
                ? LogLine(
                    .warning, .storage,
                    "the flash budget of today is spent; nothing is held back, but acknowledgements come later"
                )
                : LogLine(.notice, .storage, "the flash budget is kept again"))
    }

    /// Time off that the wall clock proves is counted, and the wall clock is kept as evidence for the next start.
    private func hearWallClock() {
        let now = clock.now
        let reading = BootClock.wall()
        let counted = witness.anchorClock.map { gateway.state.offMilliseconds(since: $0) } ?? 0
        var isEvidenceDue =
            now.milliseconds(since: max(journal.stampedAt, stampAskedAt)) >= Self.longestUnstamped
        if let finding = witness.hear(reading, at: now, counted: counted) {
            if let line = LogLine(finding) { log.write(line) }
            if case .wasOff(let off) = finding {
                take(.wasOff(off))
                provenAt = gateway.lastPosition
            }
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
            carryOut(at: now)
        }
    }

    /// Milliseconds. A power cut takes no more than this from the clock, while there is anything it counts for.
    private static let longestUnstamped: UInt64 = 600_000

    private func scheduleWatchdog() {
        guard let interval = notifier.watchdogIntervalMilliseconds else { return }
        loop.assumeIsolated().scheduleTask(in: .milliseconds(Int64(clamping: interval))) {
            if self.diskMadeProgress { self.notifier.watchdog() }
            self.diskMadeProgress = self.unanswered == 0
            self.scheduleWatchdog()
        }
    }

    // MARK: From the operator

    var isServing: Bool { phase == .serving }

    /// - Returns: what is wrong with the files of TLS listeners.
    func readListenerSecurity() -> [String] { transport.readSecurity().map(\.description) }

    func note(_ line: String) { log.write(LogLine(.notice, .gateway, line)) }
    func complain(_ line: String) { log.write(LogLine(.error, .gateway, line)) }

    private func openControl() {
        let socket = ControlSocket(path: ControlPath(state: settings.state), loop: loop) { command, reply in
            self.carryOut(command, reply)
        }
        control = socket
        socket.open { reason in
            self.log.write(
                LogLine(
                    .warning, .gateway,
                    "the commands that change a running gateway cannot reach it: \(reason)"))
        }
    }

    private func carryOut(_ command: AdminCommand, _ reply: @escaping (AdminAnswer) -> Void) {
        guard isServing else { return reply(.failed("the gateway is starting or stopping")) }
        let now = clock.now
        switch command {
        case .reload:
            return reload(reply)
        case .clients:
            return reply(
                AdminAnswer(isGood: true, lines: gateway.clients.map { $0.line(settings.listenerAddresses) }))
        case .profiles:
            let lines = gateway.profileUse.map { $0.counts.line(of: $0.name) }
            return reply(
                AdminAnswer(isGood: true, lines: lines.isEmpty ? ["no device profiles are in use"] : lines))
        case .replay(let uplink, _) where !gateway.hasDeadLetters(ofUplink: uplink),
            .purge(let uplink, _) where !gateway.hasDeadLetters(ofUplink: uplink):
            return reply(.failed("there is no uplink \"\(uplink)\", and there are no dead letters of one"))
        case .replay where !gateway.mayReplayDeadLetters:
            return reply(.failed("not now: there is no room to send them again; they stay where they are"))
        case .replay(let uplink, let numbers):
            let count = gateway.replayDeadLetters(uplink: uplink, numbers: numbers, at: now, into: &effects)
            reply(AdminAnswer(isGood: true, lines: ["\(count) sent again"]))
        case .purge(let uplink, let numbers):
            let count = gateway.purgeDeadLetters(uplink: uplink, numbers: numbers, at: now, into: &effects)
            reply(AdminAnswer(isGood: true, lines: ["\(count) forgotten"]))
        }
        carryOut(at: now)
        settle()
    }

    /// Gives the core the plan that `settings` make now, and each link its own.
    ///
    /// - Returns: what changed, for people.
    func reconfigure(_ plans: [UplinkPlan], before: Settings) -> [String] {
        var lines: [String] = []
        uplinkPlans = plans
        for (plan, now) in zip(plans, settings.uplinks) {
            let earlier = before.uplinks.first { $0.name == plan.name }
            guard let index = linkPlans.firstIndex(where: { $0.name == plan.name }) else {
                // The core numbers uplinks that it did not know in the order of the plan, as this does.
                addLink(plan)
                lines.append("uplink \"\(plan.name)\": new")
                continue
            }
            if earlier == nil {
                lines.append("uplink \"\(plan.name)\": back")
            } else if linkPlans[index] != plan {
                lines.append("uplink \"\(plan.name)\": changed, and connects anew")
            } else if earlier != now {
                lines.append("uplink \"\(plan.name)\": changed")
            }
            guard linkPlans[index] != plan else { continue }
            linkPlans[index] = plan
            links[index].adopt(plan)
        }
        for gone in before.uplinks where !plans.contains(where: { $0.name == gone.name }) {
            lines.append("uplink \"\(gone.name)\": gone; what waits for it is kept under its name")
        }
        take(.reconfigured(GatewayPlan(settings)))
        settle()
        return lines
    }

    // MARK: The end

    /// Tells every client, waits until they and the disk have what is theirs, and ends the process.
    func stop() {
        guard phase == .serving || phase == .starting else { return }
        phase = .disconnecting
        log.write(LogLine(.notice, .gateway, "stopping"))
        notifier.stopping()
        take(.stop)
        settle()
        transport.stop().assumeIsolated().whenComplete { _ in self.closeJournal() }
        loop.assumeIsolated().scheduleTask(in: Self.stopTimeout) {
            self.fail("the disk did not answer in time; what was acknowledged is safe", .failed)
        }
    }

    /// Longer than clients get to read their last packet, shorter than systemd waits.
    private static let stopTimeout: TimeAmount = .seconds(15)

    private func closeJournal() {
        control?.close()
        for link in links { link.stop() }
        settle()
        let now = clock.now
        phase = .closingJournal
        log.write(LogLine(gateway.state.balance))
        if journal.hasFailed {
            return fail("stopped while the disk fails; what was acknowledged is safe", .storageFailed)
        }
        journal.beginCheckpoint(of: gateway.state, at: now)
        journal.close(at: now)
        settle()
        if journal.isClosed { finish() }
    }

    private func finish(_ status: ExitStatus = .success) {
        if status == .success { log.write(LogLine(.notice, .gateway, "stopped; every session is safe")) }
        log.flush(isEnd: true)
        end(status)
    }

    private func fail(_ text: String, _ status: ExitStatus) {
        log.write(LogLine(.error, .gateway, text))
        finish(status)
    }
}

extension LogLine {
    /// The books at the end of a process (promise P3).
    fileprivate init(_ balance: Balance) {
        let books = balance.books
        let text =
            "books: \(books.received) received, \(books.delivered) delivered, \(balance.queued) queued, "
            + "\(books.expired) expired, \(books.droppedUnexpired) dropped"
        self.init(
            balance.isEven ? .notice : .error, .storage,
            balance.isEven ? text : text + "; they do not balance")
    }
}

/// What the process tells systemd by ending, as in sysexits(3).
enum ExitStatus: Int32 {
    case success = 0
    case failed = 1
    /// Worth trying again at once: a new process recovers what the disk holds.
    case storageFailed = 75
    /// Starting again changes nothing.
    case configuration = 78
}

extension LogLine {
    fileprivate init(_ trouble: TransportTrouble) {
        switch trouble {
        case .connectionsRefused(_, let count):
            self.init(
                .warning, .refused,
                "\(count) connections closed at once: as many clients are connected as are let in"
            )
        case .acceptFailed(_, let reason):
            self.init(.error, .gateway, "no connection can be accepted: \(reason); trying again")
        case .cutForNotReading(_, let bytes):
            self.init(
                .warning, .disconnected, "a client that does not read was cut off with \(bytes) bytes waiting"
            )
        case .cutWhileClosing:
            self.init(.info, .disconnected, "a client that was disconnected did not read its last packets")
        }
    }
}

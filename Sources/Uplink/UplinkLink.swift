import GatewayCore
import MQTT
import NIOCore

/// One uplink on the network: makes a connection, loses it, and makes another for as long as the core wants one;
/// what is said on it is the `Conversation`'s, and how it is made the `Dial`'s.
///
/// Of several addresses the first is preferred: a connection to a later one is given up, if that is wanted, as soon
/// as the first gives a connection again.
///
/// Everything happens on the event loop it was given. `deliver` is never called from inside another call, so the core
/// may be the one who calls; and every `.connected` is followed by one `.disconnected` before the next.
///
/// *Memory.* QoS 1 and 2 messages in flight are bounded by the Receive Maximum that the core obeys, and the core sends
/// nothing while it knows that the send buffer is full (`.writability`).
package final class UplinkLink {
    /// As configured, but for what the cloud has said it will not take of it.
    private var plan: UplinkPlan
    private let index: UplinkIndex
    private let eventLoop: any EventLoop
    private let deliver: (UplinkIndex, UplinkEvent) -> Void
    private let log: (UplinkNotice) -> Void

    private enum Phase {
        /// The core does not want a connection.
        case idle
        case waiting(Scheduled<Void>)
        case connecting(Dial)
        case talking(Wire, Conversation)
    }
    private var phase = Phase.idle
    /// Counts attempts, so that what an earlier connection still says is told from the present one's.
    private var attempt: UInt64 = 0

    private var order: AddressOrder
    /// By address.
    private var places: [Place]
    private struct Place {
        /// Whether the next 3.1.1 connection sets the bit of Mosquitto's bridges; turned around when the broker
        /// refuses the version or hangs up instead of sending CONNACK, as some do on seeing it.
        var asBridge = true
        /// Addresses may lead to brokers that share no sessions. Kept in memory: after a restart of ours there is
        /// only what the first broker to answer says.
        var held = HeldByCloud()
    }
    /// The attempt at the first address beside a connection to another, or the wait for it.
    private var returning: Returning?
    private enum Returning {
        case waiting(Scheduled<Void>)
        case connecting(Dial)
    }
    /// nil when no address is secure.
    private var security: SecurityFiles?
    private var nextLookAtSecurity = NIODeadline.now()

    /// The next connection asks the cloud to forget us; until one did.
    private var wantsClean = false
    private var openedAt: NIODeadline?

    /// What the core is to hear, in order.
    private var pending: [UplinkEvent] = []
    private var isDelivering = false
    /// Whether `.connected` stands in `pending` or was delivered, without its `.disconnected`.
    private var isAnnounced = false
    /// Whether the core was told of this connection; before, what it sends is meant for an earlier one.
    private var isHeard = false
    private var isFlushScheduled = false
    /// NIO has been given what is to be written, and has not come back. If that fails it reads what is left in the socket
    /// and closes it before it comes back.
    private var isWriting = false
    /// Why the connection that is written to is over.
    private var lossWhileWriting: LinkLoss?

    /// - Parameters:
    ///   - eventLoop: the one everything here runs on, this initializer included.
    ///   - deliver: given each event, in order.
    ///   - log: given what an operator may want to read.
    package init(
        plan: UplinkPlan, index: UplinkIndex, eventLoop: any EventLoop,
        deliver: @escaping (UplinkIndex, UplinkEvent) -> Void, log: @escaping (UplinkNotice) -> Void
    ) {
        self.plan = plan
        self.index = index
        order = AddressOrder(count: plan.addresses.count)
        places = plan.addresses.map { _ in Place() }
        if plan.addresses.contains(where: \.isSecure) {
            security = SecurityFiles(plan.security ?? UplinkSecurity())
        }
        self.eventLoop = eventLoop
        self.deliver = deliver
        self.log = log
    }

    /// Does what the core asks. Packets are written together at the next `flush`, or by themselves once the
    /// event loop has nothing better to do.
    package func perform(_ command: UplinkCommand) {
        eventLoop.preconditionInEventLoop()
        switch command {
        case .open(let cleanStart):
            wantsClean = cleanStart
            if case .idle = phase { connect() }
        case .send(let packet):
            send(packet)
        case .subscribe:
            guard isHeard, case .talking(_, let conversation) = phase else { return }
            conversation.subscribe()
            flushSoon()
        case .reconnect:
            if case .talking = phase { lose(.asked) }
        case .close:
            stop()
        }
    }

    /// Goes on with another plan: the connection there is says goodbye, and another is made by the new plan. The session
    /// at the cloud goes on, unless the plan names another one.
    package func adopt(_ plan: UplinkPlan) {
        eventLoop.preconditionInEventLoop()
        let wasIdle = isIdle
        // First, for what is left of this connection belongs to its address.
        stop()
        // What a broker holds of us it holds under this name.
        let known =
            plan.clientIdentifier == self.plan.clientIdentifier ? Array(zip(self.plan.addresses, places)) : []
        places = plan.addresses.map { address in known.first { $0.0 == address }?.1 ?? Place() }
        order = AddressOrder(count: plan.addresses.count)
        self.plan = plan
        let isSecure = plan.addresses.contains(where: \.isSecure)
        security = isSecure ? SecurityFiles(plan.security ?? UplinkSecurity()) : nil
        // As if nothing had happened yet: no pause, and the first address.
        if !wasIdle { connect() }
    }

    private var isIdle: Bool {
        if case .idle = phase { true } else { false }
    }

    /// Writes what was given to `perform`.
    package func flush() {
        eventLoop.preconditionInEventLoop()
        guard case .talking(let wire, let conversation) = phase else { return }
        conversation.flush()
        absorb(conversation, wire)
    }

    /// Says goodbye, if there is somebody to say it to, and stays away.
    package func stop() {
        eventLoop.preconditionInEventLoop()
        let last = phase
        phase = .idle
        attempt += 1
        openedAt = nil
        giveUpReturning()
        switch last {
        case .idle:
            break
        case .connecting(let dial):
            dial.cancel()
        case .waiting(let retry):
            retry.cancel()
        case .talking(let wire, let conversation):
            part(from: conversation, on: wire, saysOffline: true)
        }
    }

    // MARK: Connecting

    private func connect() {
        attempt += 1
        let attempt = attempt
        let address = plan.addresses[order.current]
        log(.connecting(address))
        if address.isSecure, let words = readSecurity() {
            return failed(.securityUnusable(words))
        }
        let dial = Dial(address, plan: plan, security: security?.context, eventLoop: eventLoop) {
            [weak self] outcome in
            guard let self, attempt == self.attempt, case .connecting = self.phase else { return }
            switch outcome {
            case .ready(let wire): self.begin(on: wire)
            case .failed(let loss): self.failed(loss)
            }
            self.deliverPending()
        }
        phase = .connecting(dial)
        dial.start()
    }

    /// Reads certificates that are not those in use.
    ///
    /// - Returns: why there are none to use.
    private func readSecurity() -> String? {
        nextLookAtSecurity = .now() + Self.securityLookInterval
        guard case .unusable(let words)? = security?.look(), security?.context != nil else {
            return security?.context == nil ? security?.fault : nil
        }
        log(.securityUnusable(words))
        return nil
    }

    /// How often files are looked at beside a connection.
    private static let securityLookInterval = TimeAmount.seconds(10)

    /// The connection stands: CONNECT leaves.
    private func begin(on wire: Wire) {
        do throws(EngineFailure) {
            let conversation = try Conversation(
                plan: plan, opening: opening, now: Self.now(), held: places[order.current].held)
            phase = .talking(wire, conversation)
            wire.listen(self, attempt: attempt)
            scheduleTick(attempt: attempt)
            absorb(conversation, wire)
        } catch {
            wire.hangUp()
            failed(.engine(error.description))
        }
    }

    private var opening: UplinkOpening {
        if plan.version == .v5_0 { return wantsClean ? .clean : .resume(asBridge: false) }
        let asBridge = places[order.current].asBridge
        return wantsClean ? .sweep(asBridge: asBridge) : .resume(asBridge: asBridge)
    }

    // MARK: Talking

    func received(_ bytes: ByteBuffer, attempt: UInt64) {
        guard attempt == self.attempt, case .talking(let wire, let conversation) = phase else { return }
        bytes.withUnsafeReadableBytes { conversation.received($0) }
        // Absorbed behind what is written.
        guard !isWriting else { return }
        absorb(conversation, wire)
        deliverPending()
    }

    /// Everything that had arrived was read: what the core answered leaves in one write.
    func receivedAll(attempt: UInt64) {
        guard attempt == self.attempt, !isWriting else { return }
        flush()
    }

    /// The send buffer filled up or drained: the core holds back what it would only fill it with.
    func writability(_ isWritable: Bool, attempt: UInt64) {
        guard attempt == self.attempt, isAnnounced else { return }
        pending.append(.writability(isWritable))
        deliverSoon()
    }

    func closed(_ loss: LinkLoss, attempt: UInt64) {
        guard attempt == self.attempt else { return }
        guard !isWriting else {
            lossWhileWriting = lossWhileWriting ?? loss
            return
        }
        lose(loss)
        deliverPending()
    }

    private func scheduleTick(attempt: UInt64) {
        eventLoop.assumeIsolated().scheduleTask(in: .seconds(1)) { [weak self] in
            self?.tick(attempt: attempt)
        }
    }

    private func tick(attempt: UInt64) {
        guard attempt == self.attempt, case .talking(let wire, let conversation) = phase else { return }
        conversation.tick(now: Self.now())
        absorb(conversation, wire)
        lookAtSecurity()
        scheduleTick(attempt: attempt)
        deliverPending()
    }

    /// A connection lasts for weeks, certificates do not.
    private func lookAtSecurity() {
        guard case .talking(let wire, let conversation) = phase, plan.addresses[order.current].isSecure,
            NIODeadline.now() >= nextLookAtSecurity
        else { return }
        nextLookAtSecurity = .now() + Self.securityLookInterval
        switch security?.look() {
        case .identityChanged?:
            attempt += 1
            giveUpReturning()
            part(from: conversation, on: wire, saysOffline: false)
            log(.lost(.identityChanged))
            openedAt = nil
            connect()
        case .unusable(let words)?:
            log(.securityUnusable(words))
        case .unchanged?, .trustChanged?, nil:
            break
        }
    }

    private func send(_ packet: Packet) {
        guard isHeard, case .talking(_, let conversation) = phase else { return }
        conversation.perform(packet)
        flushSoon()
    }

    private func flushSoon() {
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        eventLoop.assumeIsolated().execute {
            self.isFlushScheduled = false
            self.flush()
        }
    }

    /// Takes over what a conversation has produced.
    private func absorb(_ conversation: Conversation, _ wire: Wire) {
        takeOver(conversation)
        lossWhileWriting = nil
        write(conversation, wire)
        // What came in the middle of a write that failed.
        takeOver(conversation)
        if let ending = conversation.ending ?? lossWhileWriting { lose(ending) }
        if !pending.isEmpty { deliverSoon() }
    }

    private func takeOver(_ conversation: Conversation) {
        for notice in conversation.takeNotices() { log(notice) }
        for event in conversation.takeEvents() {
            if case .connected(let terms) = event { opened(terms) }
            pending.append(event)
        }
    }

    private func opened(_ terms: UplinkTerms) {
        isAnnounced = true
        openedAt = .now()
        wantsClean = false
        if !terms.sessionPresent {
            for place in places.indices where place != order.current { places[place].held.isForgotten = true }
        }
        places[order.current].held.isForgotten = false
        returnSoon()
    }

    private func write(_ conversation: Conversation, _ wire: Wire) {
        let bytes = conversation.takeWireBytes()
        guard !bytes.isEmpty else { return }
        isWriting = true
        wire.write(bytes)
        isWriting = false
    }

    // MARK: Going back to the first address

    private func returnSoon() {
        guard order.current > 0, let wait = plan.failBackMilliseconds else { return }
        giveUpReturning()
        returning = .waiting(
            eventLoop.assumeIsolated().scheduleTask(in: .milliseconds(wait)) { [weak self] in
                self?.tryReturning()
            })
    }

    private func giveUpReturning() {
        switch returning {
        case .waiting(let timer)?: timer.cancel()
        case .connecting(let dial)?: dial.cancel()
        case nil: break
        }
        returning = nil
    }

    /// Makes a connection to the first address beside the present one, which ends only once that stands.
    private func tryReturning() {
        guard case .talking = phase else { return }
        let address = plan.addresses[0]
        // A secure connection looks at the files by itself, and has to know if they change.
        if address.isSecure, !plan.addresses[order.current].isSecure, let words = readSecurity() {
            return stay(.securityUnusable(words))
        }
        let dial = Dial(address, plan: plan, security: security?.context, eventLoop: eventLoop) {
            [weak self] outcome in
            guard let self, case .connecting? = self.returning else { return }
            switch outcome {
            case .ready(let wire): self.failBack(to: wire)
            case .failed(let loss): self.stay(loss)
            }
            self.deliverPending()
        }
        returning = .connecting(dial)
        dial.start()
    }

    private func stay(_ loss: LinkLoss) {
        log(.notFailingBack(loss))
        returnSoon()
    }

    private func failBack(to wire: Wire) {
        returning = nil
        guard case .talking(let last, let conversation) = phase else { return wire.hangUp() }
        log(.failingBack(plan.addresses[0]))
        attempt += 1
        part(from: conversation, on: last, saysOffline: false)
        openedAt = nil
        order.returned()
        begin(on: wire)
    }

    // MARK: Losing

    /// This connection is over; unless the core said otherwise another one follows.
    private func lose(_ loss: LinkLoss) {
        switch phase {
        case .idle, .waiting:
            return
        case .connecting(let dial):
            dial.cancel()
            failed(loss)
        case .talking(let wire, let conversation):
            places[order.current].held.identifiers = conversation.unreleased
            failed(loss)
            hangUp(wire)
            deliverSoon()
        }
    }

    /// Says goodbye to a connection that is no longer wanted.
    private func part(from conversation: Conversation, on wire: Wire, saysOffline: Bool) {
        places[order.current].held.identifiers = conversation.unreleased
        conversation.leave(saysOffline: saysOffline)
        write(conversation, wire)
        hangUp(wire)
        deliverSoon()
    }

    private func hangUp(_ wire: Wire) {
        wire.hangUp()
        if isAnnounced {
            isAnnounced = false
            pending.append(.disconnected)
        }
    }

    private func failed(_ loss: LinkLoss) {
        attempt += 1
        giveUpReturning()
        log(.lost(loss))
        if loss == .swept {
            wantsClean = false
            return connect()
        }
        switch next(after: loss) {
        case .atOnce:
            connect()
        case .afterPause(let doublings):
            let delay = backoff(doublings)
            log(.retrying(afterMilliseconds: delay))
            phase = .waiting(
                eventLoop.assumeIsolated().scheduleTask(in: .milliseconds(delay)) { [weak self] in
                    self?.connect()
                })
        }
    }

    private func next(after loss: LinkLoss) -> AddressOrder.Next {
        if let openedAt {
            self.openedAt = nil
            // A connection that lasted proves that the cloud is well; one that did not, nothing.
            return NIODeadline.now() - openedAt >= .seconds(5) ? order.ended() : order.failed()
        }
        switch loss {
        case .refused(.qosNotSupported) where plan.lowersWillQoS(),
            .refused(.retainNotSupported) where plan.dropsWillRetain():
            log(.willReduced)
            return order.failedForNow()
        case .closed, .refused(.unsupportedProtocolVersion):
            places[order.current].asBridge.toggle()
            return plan.version < .v5_0 && !places[order.current].asBridge
                ? order.failedForNow() : order.failed()
        default:
            return order.failed()
        }
    }

    /// Full jitter: anything up to a bound that doubles, so that a fleet does not return in step.
    private func backoff(_ doublings: Int) -> Int64 {
        let bound = min(plan.backoffMaxMilliseconds, max(1, plan.backoffMinMilliseconds) << doublings)
        return Int64.random(in: 0...max(1, bound))
    }

    // MARK: Delivering

    private func deliverSoon() {
        guard !isDelivering else { return }
        eventLoop.assumeIsolated().execute { self.deliverPending() }
    }

    private func deliverPending() {
        guard !isDelivering else { return }
        isDelivering = true
        while !pending.isEmpty {
            let batch = pending
            pending = []
            for event in batch {
                switch event {
                case .connected: isHeard = true
                case .disconnected: isHeard = false
                case .received, .receivedTooLarge, .writability: break
                }
                deliver(index, event)
            }
        }
        isDelivering = false
    }

    private static func now() -> UInt64 { NIODeadline.now().uptimeNanoseconds / 1_000_000 }
}

extension UplinkPlan {
    /// Makes the Will bear a lower QoS, which a cloud wants that refuses it for its QoS [MQTT5-3.2.2-12]; false when
    /// there is none lower.
    fileprivate mutating func lowersWillQoS() -> Bool {
        guard let qos = will?.qos ?? status?.qos, let lower = QoS(rawValue: qos.rawValue &- 1) else {
            return false
        }
        will?.qos = lower
        status?.qos = lower
        return true
    }

    /// Likewise for RETAIN [MQTT5-3.2.2-13].
    fileprivate mutating func dropsWillRetain() -> Bool {
        guard will?.retain ?? status?.retain ?? false else { return false }
        will?.retain = false
        status?.retain = false
        return true
    }
}

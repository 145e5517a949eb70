import GatewayCore
import MQTT
import NIOCore
import NIOPosix

/// One uplink on the network: makes the TCP connection, loses it, and makes it again for as long as the core
/// wants it; what is said on it is the `Conversation`'s.
///
/// Everything happens on the event loop it was given, except for the name look-up, which the bootstrap does
/// on a thread of its own. `deliver` is never called from inside `perform`, so the core may be the one who
/// calls; and every `.connected` is followed by one `.disconnected` before the next.
///
/// *Memory.* QoS 1 and 2 messages in flight are bounded by the Receive Maximum that the core obeys. QoS 0
/// messages are left out while the connection does not take what it was given, and counted in a notice.
package final class UplinkLink {
    private let plan: UplinkPlan
    private let index: UplinkIndex
    private let eventLoop: any EventLoop
    private let deliver: (UplinkIndex, UplinkEvent) -> Void
    private let log: (UplinkNotice) -> Void

    private enum Phase {
        /// The core does not want a connection.
        case idle
        case waiting(Scheduled<Void>)
        case connecting
        case talking(any Channel, Conversation)
    }
    private var phase = Phase.idle
    /// Counts attempts, so that what an earlier connection still says is told from the present one's.
    private var attempt: UInt64 = 0

    /// The next connection asks the cloud to forget us; until one did.
    private var wantsClean = false
    /// Whether the next 3.1.1 connection sets the bit of Mosquitto's bridges; turned around when the
    /// broker refuses the version or hangs up instead of sending CONNACK, as some do on seeing it.
    private var asBridge = true
    /// How many connections in a row did not last; decides how long to wait.
    private var failures = 0
    private var openedAt: NIODeadline?

    /// What the core is to hear, in order.
    private var pending: [UplinkEvent] = []
    private var isDelivering = false
    /// Whether `.connected` stands in `pending` or was delivered, without its `.disconnected`.
    private var isAnnounced = false
    /// Whether the core was told of this connection; before, what it sends is meant for an earlier one.
    private var isHeard = false
    private var isFlushScheduled = false
    private var discardedQoS0 = 0

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

    /// Writes what was given to `perform`.
    package func flush() {
        eventLoop.preconditionInEventLoop()
        guard case .talking(let channel, let conversation) = phase else { return }
        conversation.flush()
        absorb(conversation, channel)
    }

    /// Says goodbye, if there is somebody to say it to, and stays away.
    package func stop() {
        eventLoop.preconditionInEventLoop()
        let last = phase
        phase = .idle
        attempt += 1
        switch last {
        case .idle, .connecting:
            break
        case .waiting(let retry):
            retry.cancel()
        case .talking(let channel, let conversation):
            conversation.leave()
            write(conversation, channel)
            hangUp(channel)
            deliverSoon()
        }
    }

    // MARK: Connecting

    private func connect() {
        attempt += 1
        let attempt = attempt
        phase = .connecting
        let address = plan.addresses[0]
        log(.connecting(address))
        let link = NIOLoopBound(self, eventLoop: eventLoop)
        ClientBootstrap(group: eventLoop)
            .connectTimeout(.seconds(plan.connectTimeoutSeconds))
            .channelOption(.socketOption(.tcp_nodelay), value: 1)
            .channelOption(.writeBufferWaterMark, value: .init(low: 65_536, high: 1_048_576))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        WireHandler(link: link.value, attempt: attempt))
                }
            }
            .connect(host: address.host, port: address.port)
            .assumeIsolated()
            .whenFailure { error in
                guard attempt == self.attempt, case .connecting = self.phase else { return }
                self.failed(.unreachable("\(error)"))
            }
    }

    /// The TCP connection stands: CONNECT leaves.
    fileprivate func opened(_ channel: any Channel, attempt: UInt64) {
        guard attempt == self.attempt, case .connecting = phase else {
            return channel.close(promise: nil)
        }
        do throws(EngineFailure) {
            let conversation = try Conversation(plan: plan, opening: opening, now: Self.now())
            phase = .talking(channel, conversation)
            absorb(conversation, channel)
            scheduleTick(attempt: attempt)
        } catch {
            failed(.engine(error.description))
            channel.close(promise: nil)
        }
    }

    private var opening: UplinkOpening {
        if plan.version == .v5_0 { return wantsClean ? .clean : .resume(asBridge: false) }
        return wantsClean ? .sweep(asBridge: asBridge) : .resume(asBridge: asBridge)
    }

    // MARK: Talking

    fileprivate func received(_ bytes: ByteBuffer, attempt: UInt64) {
        guard attempt == self.attempt, case .talking(let channel, let conversation) = phase else { return }
        bytes.withUnsafeReadableBytes { conversation.received($0) }
        absorb(conversation, channel)
        deliverPending()
    }

    /// Everything that had arrived was read: what the core answered leaves in one write.
    fileprivate func receivedAll(attempt: UInt64) {
        guard attempt == self.attempt else { return }
        flush()
    }

    fileprivate func closed(_ loss: LinkLoss, attempt: UInt64) {
        guard attempt == self.attempt else { return }
        lose(loss)
        deliverPending()
    }

    private func scheduleTick(attempt: UInt64) {
        eventLoop.assumeIsolated().scheduleTask(in: .seconds(1)) { [weak self] in
            self?.tick(attempt: attempt)
        }
    }

    private func tick(attempt: UInt64) {
        guard attempt == self.attempt, case .talking(let channel, let conversation) = phase else { return }
        conversation.tick(now: Self.now())
        absorb(conversation, channel)
        if discardedQoS0 > 0 {
            log(.discardedQoS0(count: discardedQoS0))
            discardedQoS0 = 0
        }
        scheduleTick(attempt: attempt)
        deliverPending()
    }

    private func send(_ packet: Packet) {
        guard isHeard, case .talking(let channel, let conversation) = phase else { return }
        if case .publish(let publish) = packet, publish.qos == .atMostOnce, !channel.isWritable {
            discardedQoS0 += 1
            return
        }
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
    private func absorb(_ conversation: Conversation, _ channel: any Channel) {
        for notice in conversation.takeNotices() { log(notice) }
        for event in conversation.takeEvents() {
            if case .connected = event {
                isAnnounced = true
                openedAt = .now()
                wantsClean = false
            }
            pending.append(event)
        }
        write(conversation, channel)
        if let ending = conversation.ending { lose(ending) }
        if !pending.isEmpty { deliverSoon() }
    }

    private func write(_ conversation: Conversation, _ channel: any Channel) {
        let bytes = conversation.takeWireBytes()
        if !bytes.isEmpty { channel.writeAndFlush(ByteBuffer(bytes: bytes), promise: nil) }
    }

    // MARK: Losing

    /// This connection is over; unless the core said otherwise another one follows.
    private func lose(_ loss: LinkLoss) {
        switch phase {
        case .idle, .waiting:
            return
        case .connecting:
            failed(loss)
        case .talking(let channel, _):
            failed(loss)
            hangUp(channel)
            deliverSoon()
        }
    }

    /// Closes a channel that is no longer the present one: NIO reports the closing before it returns.
    private func hangUp(_ channel: any Channel) {
        // NIO writes what was flushed before a close only if the socket takes it at once: a goodbye that
        // finds the socket full is not worth waiting for.
        channel.close(promise: nil)
        if isAnnounced {
            isAnnounced = false
            pending.append(.disconnected)
        }
    }

    private func failed(_ loss: LinkLoss) {
        attempt += 1
        log(.lost(loss))
        if loss == .swept {
            wantsClean = false
            return connect()
        }
        if let openedAt {
            // A connection that lasted proves that the cloud is well; one that did not, nothing.
            if NIODeadline.now() - openedAt >= .seconds(5) { failures = 0 }
        } else if loss == .closed || loss == .refused(.unsupportedProtocolVersion) {
            asBridge.toggle()
        }
        openedAt = nil
        let delay = backoff()
        failures += 1
        log(.retrying(afterMilliseconds: delay))
        phase = .waiting(
            eventLoop.assumeIsolated().scheduleTask(in: .milliseconds(delay)) { [weak self] in
                self?.connect()
            })
    }

    /// Full jitter: anything up to a bound that doubles, so that a fleet does not return in step.
    private func backoff() -> Int64 {
        let doublings = min(failures, 20)
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
                case .received, .receivedTooLarge: break
                }
                deliver(index, event)
            }
        }
        isDelivering = false
    }

    private static func now() -> UInt64 { NIODeadline.now().uptimeNanoseconds / 1_000_000 }
}

/// Carries a channel's bytes to its link.
private final class WireHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let link: UplinkLink
    private let attempt: UInt64

    init(link: UplinkLink, attempt: UInt64) {
        self.link = link
        self.attempt = attempt
    }

    func channelActive(context: ChannelHandlerContext) {
        link.opened(context.channel, attempt: attempt)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        link.received(unwrapInboundIn(data), attempt: attempt)
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        link.receivedAll(attempt: attempt)
    }

    func channelInactive(context: ChannelHandlerContext) {
        link.closed(.closed, attempt: attempt)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        link.closed(.unreachable("\(error)"), attempt: attempt)
        context.close(promise: nil)
    }
}

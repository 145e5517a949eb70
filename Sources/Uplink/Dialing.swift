import Glibc
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import NIOTLS
import NIOWebSocket

/// One attempt to reach the cloud at one address: TCP, and whatever lies between it and MQTT: a proxy's tunnel,
/// TLS, a WebSocket, in this order.
///
/// The name look-up runs on a thread of its own, and of several addresses of a name the first to answer wins,
/// IPv6 a little ahead (RFC 8305): both are the bootstrap's. Nothing of MQTT is written, and nothing that came
/// is read as MQTT, before the last of these stands.
///
/// Everything happens on one event loop. The end is told once, never from within `start`.
final class Dial {
    private enum Step: String {
        case tunnel = "proxy"
        case tls = "TLS"
        case webSocket = "WebSocket"
    }

    /// What comes of it.
    enum Outcome {
        /// Silent until it is given a listener.
        case ready(Wire)
        case failed(LinkLoss)
    }

    private let address: UplinkAddress
    private let plan: UplinkPlan
    private let security: NIOSSLContext?
    private let eventLoop: any EventLoop
    private let isInspection: Bool
    /// Taken when the attempt is over.
    private var ended: ((Outcome) -> Void)?

    private var steps: ArraySlice<Step>
    private var wire: Wire?
    private var deadline: Scheduled<Void>?
    /// What is waited for once the TCP connection stands.
    private var step: Step?
    private var inspection: Dial?
    /// What an inspection was shown.
    private var chain: [NIOSSLCertificate] = []

    /// - Parameters:
    ///   - security: for addresses that are secure.
    ///   - isInspection: only to see what certificate the cloud shows; never ready.
    init(
        _ address: UplinkAddress, plan: UplinkPlan, security: NIOSSLContext?, eventLoop: any EventLoop,
        isInspection: Bool = false, ended: @escaping (Outcome) -> Void
    ) {
        self.address = address
        self.plan = plan
        self.security = security
        self.eventLoop = eventLoop
        self.isInspection = isInspection
        self.ended = ended
        var steps: [Step] = []
        if plan.proxy != nil { steps.append(.tunnel) }
        if address.isSecure { steps.append(.tls) }
        if address.isWebSocket { steps.append(.webSocket) }
        self.steps = steps[...]
    }

    func start() {
        let dial = NIOLoopBound(self, eventLoop: eventLoop)
        ClientBootstrap(group: eventLoop)
            .connectTimeout(.seconds(plan.connectTimeoutSeconds))
            .channelOption(.socketOption(.tcp_nodelay), value: 1)
            .channelOption(.writeBufferWaterMark, value: .init(low: 65_536, high: 1_048_576))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(WireHandler(dial: dial.value))
                }
            }
            .connect(host: plan.proxy?.host ?? address.host, port: plan.proxy?.port ?? address.port)
            .assumeIsolated()
            .whenFailure { error in
                // Several sockets may have failed; this speaks for all of them.
                self.failed(LinkLoss(error, name: self.expectedName))
            }
    }

    /// Gives the attempt up, without a word.
    func cancel() {
        ended = nil
        finish()
    }

    private func finish() {
        deadline?.cancel()
        inspection?.cancel()
        inspection = nil
        wire?.hangUp()
        wire = nil
    }

    private func failed(_ loss: LinkLoss) {
        guard let ended else { return }
        if case .untrusted = loss, !isInspection { return inspect(loss) }
        self.ended = nil
        finish()
        ended(.failed(loss))
    }

    // MARK: Step by step

    /// The TCP connection stands.
    fileprivate func connected(_ wire: Wire) {
        guard ended != nil, self.wire == nil else { return wire.hangUp() }
        self.wire = wire
        deadline = eventLoop.assumeIsolated().scheduleTask(in: .seconds(plan.connectTimeoutSeconds)) {
            self.failed(.unreachable("no answer from \(self.address) (\(self.waitedFor))"))
        }
        goOn(wire)
    }

    private func goOn(_ wire: Wire) {
        guard let step = steps.popFirst() else {
            guard let ended, !isInspection else { return }
            self.ended = nil
            self.wire = nil
            deadline?.cancel()
            return ended(.ready(wire))
        }
        self.step = step
        do {
            switch step {
            case .tunnel: try openTunnel(wire)
            case .tls: try secure(wire)
            case .webSocket: try openWebSocket(wire)
            }
        } catch {
            failed(LinkLoss(error, name: expectedName))
        }
    }

    private func openTunnel(_ wire: Wire) throws {
        guard let proxy = plan.proxy else { return goOn(wire) }
        try wire.insert(HeadExchange(.tunnel(to: address, proxy)))
    }

    private func secure(_ wire: Wire) throws {
        guard let security else { throw LinkLossError(loss: .insecure("no certificates to trust")) }
        // SNI is for names only (RFC 6066, 3); without one the certificate has to bear the numeric address, which
        // NIOSSL takes from the connection, and that leads to the proxy.
        let name = plan.security?.serverName ?? (address.isNumeric ? nil : address.host)
        guard name != nil || plan.proxy == nil else {
            throw LinkLossError(
                loss: .insecure(
                    "through a proxy, TLS needs a name to check: write server-name, or a name as host"))
        }
        if isInspection {
            let dial = NIOLoopBound(self, eventLoop: eventLoop)
            let look: NIOSSLCustomVerificationCallback = { chain, answer in
                dial.value.chain = chain
                answer.succeed(.failed)
            }
            try wire.insert(
                NIOSSLClientHandler(
                    context: security, serverHostname: name, customVerificationCallback: look))
        } else {
            try wire.insert(NIOSSLClientHandler(context: security, serverHostname: name))
        }
    }

    private func openWebSocket(_ wire: Wire) throws {
        try wire.insert(HeadExchange(.webSocket(address, key: NIOWebSocketClientUpgrader.randomRequestKey())))
    }

    private var waitedFor: String { step?.rawValue ?? "TCP" }
    private var expectedName: String { plan.security?.serverName ?? address.host }

    fileprivate func happened(_ event: Any, on handler: WireHandler) {
        guard ended != nil, let wire, wire.handler === handler else { return }
        switch event {
        case TLSUserEvent.handshakeCompleted(let agreed):
            // Where the cloud ignores ALPN it may be anything that speaks TLS at this port (RFC 7301, 3.2).
            let wanted = plan.security?.protocols ?? []
            guard wanted.isEmpty || wanted.contains(agreed ?? "") else { return failed(.protocolNotAgreed) }
            goOn(wire)
        case is HeadExchange.Succeeded:
            if step == .webSocket {
                do {
                    try wire.insert(WebSocketFrameEncoder())
                    try wire.insert(WebSocketCarrying())
                } catch {
                    return failed(LinkLoss(error, name: expectedName))
                }
            }
            goOn(wire)
        default:
            return
        }
    }

    // Of several sockets that were tried at once only one is the connection; of the others nothing is to be said.
    fileprivate func caught(_ error: any Error, on handler: WireHandler) {
        if wire?.handler === handler { failed(LinkLoss(error, name: expectedName)) }
    }

    fileprivate func closed(_ handler: WireHandler) {
        guard wire?.handler === handler else { return }
        failed(.unreachable("the connection was closed by the other side (\(waitedFor))"))
    }

    // MARK: Saying why

    /// BoringSSL says only that it did not trust what it was shown. A second connection, which trusts nothing, looks
    /// at it.
    private func inspect(_ loss: LinkLoss) {
        wire?.hangUp()
        wire = nil
        deadline?.cancel()
        let inspection = Dial(
            address, plan: plan, security: security, eventLoop: eventLoop, isInspection: true
        ) { [weak self] _ in
            guard let self, let ended = self.ended else { return }
            self.ended = nil
            let chain = UntrustedChain(
                certificates: self.inspection?.chain ?? [],
                authorityFile: self.plan.security?.authorityFile, now: time(nil))
            self.inspection = nil
            ended(.failed(chain.certificates.isEmpty ? loss : .untrusted(chain.words)))
        }
        self.inspection = inspection
        inspection.start()
    }
}

extension UplinkAddress {
    /// Whether the host is an address rather than a name.
    fileprivate var isNumeric: Bool {
        do {
            _ = try SocketAddress(ipAddress: host, port: port)
            return true
        } catch {
            return false
        }
    }
}

/// A network connection on which bytes of MQTT can be exchanged, or soon.
final class Wire {
    let channel: any Channel
    fileprivate let handler: WireHandler

    fileprivate init(_ channel: any Channel, _ handler: WireHandler) {
        self.channel = channel
        self.handler = handler
    }

    /// From now on `link` hears what happens, with `attempt` to tell it from other connections.
    func listen(_ link: UplinkLink, attempt: UInt64) {
        handler.listener = .link(link, attempt: attempt)
    }

    /// From now on `probe` hears what happens.
    func listen(_ probe: CloudProbe) {
        handler.listener = .probe(probe)
    }

    func write(_ bytes: [UInt8]) {
        channel.writeAndFlush(ByteBuffer(bytes: bytes), promise: nil)
    }

    /// Closes it; nobody hears of it any more.
    func hangUp() {
        handler.listener = .nobody
        // NIO writes what was flushed before a close only if the socket takes it at once: a goodbye that finds the
        // socket full is not worth waiting for.
        channel.close(promise: nil)
    }

    /// Between what is there already and MQTT.
    fileprivate func insert(_ stage: some ChannelHandler) throws {
        try channel.pipeline.syncOperations.addHandler(stage, position: .before(handler))
    }
}

/// The end of a channel: tells whoever listens what happens there.
private final class WireHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    enum Listener {
        case dial(Dial)
        case link(UplinkLink, attempt: UInt64)
        case probe(CloudProbe)
        case nobody
    }
    var listener: Listener

    init(dial: Dial) {
        listener = .dial(dial)
    }

    func channelActive(context: ChannelHandlerContext) {
        if case .dial(let dial) = listener { dial.connected(Wire(context.channel, self)) }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .dial(let dial) = listener { dial.happened(event, on: self) }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        // What comes before the last stage stands is of no stage.
        switch listener {
        case .dial, .nobody: break
        case .link(let link, let attempt): link.received(unwrapInboundIn(data), attempt: attempt)
        case .probe(let probe): probe.received(unwrapInboundIn(data))
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        if case .link(let link, let attempt) = listener { link.receivedAll(attempt: attempt) }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if case .link(let link, let attempt) = listener {
            link.writability(context.channel.isWritable, attempt: attempt)
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        switch listener {
        case .dial(let dial): dial.closed(self)
        case .link(let link, let attempt): link.closed(.closed, attempt: attempt)
        case .probe(let probe): probe.closed(.closed)
        case .nobody: break
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        switch listener {
        case .dial(let dial): dial.caught(error, on: self)
        case .link(let link, let attempt): link.closed(LinkLoss(error, name: ""), attempt: attempt)
        case .probe(let probe): probe.closed(LinkLoss(error, name: ""))
        case .nobody: break
        }
        context.close(promise: nil)
    }
}

import Glibc
import NIOCore
import NIOPosix
import NIOSSL

/// One listening socket.
final class Listener {
    private let transport: Transport
    /// In `plan.listeners`.
    private let place: Int
    private var channel: (any Channel)?
    private var file: UnixSocketFile?
    /// For connections to come; nil where there is no TLS.
    private var context: NIOSSLContext?

    init(transport: Transport, place: Int) {
        self.transport = transport
        self.place = place
    }

    private var plan: ListenerPlan { transport.plan.listeners[place] }

    /// Binds and listens; fails with `ListenFailure`.
    ///
    /// - Note: a host name is looked up on the loop, which has nothing else to do at start.
    func open() -> EventLoopFuture<SocketAddress> {
        let place = plan.address
        do throws(SecurityFailure) { try readSecurity() } catch {
            return transport.loop.makeFailedFuture(ListenFailure(address: place, reason: error.description))
        }
        return bind(place).assumeIsolated().flatMapThrowing { channel in
            self.channel = channel
            guard let address = channel.localAddress else {
                throw ListenFailure(address: place, reason: "it closed again at once")
            }
            return address
        }.flatMapErrorThrowing { error in
            throw error as? ListenFailure ?? ListenFailure(address: place, reason: plainReason(error))
        }.nonisolated()
    }

    /// Reads the files of TLS: what is connected stays as it is. What cannot be used changes nothing.
    func readSecurity() throws(SecurityFailure) {
        guard let security = plan.security else { return }
        context = try security.context(alpn: plan.framing == .none ? ["mqtt"] : ["http/1.1"])
    }

    private func bind(_ address: ListenAddress) -> EventLoopFuture<any Channel> {
        switch address {
        case .tcp(let host, let port):
            return bootstrap()
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                // Linux hands these three on to what is accepted, which saves as many system calls a connection.
                .serverChannelOption(.tcpOption(.tcp_nodelay), value: 1)
                .serverChannelOption(.socketOption(.so_keepalive), value: 1)
                .serverChannelOption(.tcpOption(unsentLowMark), value: Limits.kernelUnsentBytesMax)
                .bind(host: host, port: port)
        case .unix(let path, let mode):
            do throws(ListenFailure) {
                let (file, socket) = try UnixSocketFile.bind(path: path, mode: mode)
                self.file = file
                return bootstrap().withBoundSocket(socket)
            } catch {
                return transport.loop.makeFailedFuture(error)
            }
        }
    }

    func close() {
        channel?.close(promise: nil)
        channel = nil
        file?.remove()
        file = nil
    }

    private func bootstrap() -> ServerBootstrap {
        let bound = NIOLoopBound(self, eventLoop: transport.loop)
        let waterMark = ChannelOptions.Types.WriteBufferWaterMark(
            low: transport.plan.waitingBytesLow, high: transport.plan.waitingBytesHigh)
        return ServerBootstrap(group: transport.loop)
            .serverChannelOption(.backlog, value: Limits.backlog)
            .serverChannelOption(.maxMessagesPerRead, value: Limits.acceptsPerCycle)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        AcceptGate(bound.value.transport, bound.value.place))
                }
            }
            .childChannelOption(.writeBufferWaterMark, value: waterMark)
            .childChannelOption(
                .recvAllocator,
                value: AdaptiveRecvByteBufferAllocator(
                    minimum: Limits.receiveBytesMin, initial: Limits.receiveBytesMin,
                    maximum: Limits.receiveBytesMax)
            )
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try bound.value.setUp(channel.pipeline.syncOperations)
                }
            }
    }

    private func setUp(_ pipeline: ChannelPipeline.SynchronousOperations) throws {
        if let context { try pipeline.addHandler(NIOSSLServerHandler(context: context)) }
        switch plan.framing {
        case .none: break
        case .webSocket(let paths, let localPagesOnly):
            try WebSocketOpening(
                paths: paths, localPagesOnly: localPagesOnly, maximumPacketSize: plan.maximumPacketSize
            ).install(pipeline)
        }
        try pipeline.addHandler(Connection(transport: transport, place: place))
    }
}

/// Stands before the handler that sets accepted sockets up: closes those there is no room for, and pauses
/// when the system refuses to accept. A listening socket that stays readable while accept(2) fails would
/// otherwise wake the loop without end.
private final class AcceptGate: ChannelInboundHandler {
    typealias InboundIn = any Channel

    private let transport: Transport
    private let place: Int
    private var refusedCount = 0
    private var isReportScheduled = false

    init(_ transport: Transport, _ place: Int) {
        self.transport = transport
        self.place = place
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard transport.admits(place: place) else {
            unwrapInboundIn(data).close(promise: nil)
            refusedCount += 1
            return reportRefusals()
        }
        context.fireChannelRead(data)
    }

    /// Tells the first refusal at once and those of the minute after it together.
    private func reportRefusals() {
        guard !isReportScheduled else { return }
        isReportScheduled = true
        transport.tellSoon(
            .connectionsRefused(listener: transport.plan.listeners[place].index, count: refusedCount))
        refusedCount = 0
        transport.loop.assumeIsolated().scheduleTask(in: Limits.refusalInterval) {
            self.isReportScheduled = false
            if self.refusedCount > 0 { self.reportRefusals() }
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? IOError, context.channel.isActive else { return }
        transport.tellSoon(
            .acceptFailed(listener: transport.plan.listeners[place].index, plainReason(error)))
        setAccepting(false, context)
        transport.loop.assumeIsolated().scheduleTask(in: Limits.acceptPause) {
            if context.channel.isActive { self.setAccepting(true, context) }
        }
    }

    private func setAccepting(_ accepts: Bool, _ context: ChannelHandlerContext) {
        do {
            try context.channel.syncOptions?.setOption(.autoRead, value: accepts)
        } catch {
            // The listener was closed meanwhile: there is nothing left to accept from.
            return
        }
    }
}

/// TCP_NOTSENT_LOWAT of tcp(7): the kernel takes no more bytes while this many wait to be sent. It bounds its
/// memory, and it makes what a slow client takes visible in small steps instead of megabytes.
private let unsentLowMark = NIOBSDSocket.Option(rawValue: 25)

/// In the system's words.
private func plainReason(_ error: any Error) -> String {
    switch error {
    case let error as IOError:
        strerror(error.errnoCode).map { String(cString: $0) } ?? "error \(error.errnoCode)"
    case is SocketAddressError:
        "there is no such host or address"
    default:
        String(describing: error)
    }
}

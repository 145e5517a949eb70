import NIOCore
import NIOPosix

/// Listens at a `ControlPath` and hands each command to the gateway: one line, one answer, and the connection closes.
///
/// Everything happens on one event loop. A connection that sends no line, too long a line or nonsense costs no more
/// than its bounds (`AdminLimits`) and never reaches the gateway.
package final class ControlSocket {
    private let path: ControlPath
    private let loop: any EventLoop
    /// Takes a command and a place for its answer, which it must fill once, now or later.
    private let answer: (AdminCommand, @escaping (AdminAnswer) -> Void) -> Void
    private var channel: (any Channel)?
    fileprivate var openCount = 0

    /// - Parameter answer: called on the loop.
    package init(
        path: ControlPath, loop: any EventLoop,
        answer: @escaping (AdminCommand, @escaping (AdminAnswer) -> Void) -> Void
    ) {
        self.path = path
        self.loop = loop
        self.answer = answer
    }

    /// Begins to listen; without success the gateway runs all the same, and `failed` is told why.
    package func open(failed: @escaping (String) -> Void) {
        let descriptor: CInt
        do throws(ControlFailure) { descriptor = try path.bind() } catch { return failed(error.description) }
        let bound = NIOLoopBound(self, eventLoop: loop)
        ServerBootstrap(group: loop)
            .serverChannelOption(.backlog, value: 16)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(ControlHandler(bound.value))
                }
            }
            .withBoundSocket(descriptor)
            .assumeIsolated()
            .whenComplete { result in
                switch result {
                case .success(let channel): self.channel = channel
                case .failure(let error): failed("\(error)")
                }
            }
    }

    /// Listens no more, and removes the file.
    package func close() {
        guard let channel else { return }
        self.channel = nil
        channel.close(promise: nil)
        path.remove()
    }

    fileprivate func take(_ command: AdminCommand, _ reply: @escaping (AdminAnswer) -> Void) {
        answer(command, reply)
    }
}

/// One connection.
private final class ControlHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let socket: ControlSocket
    private var line: [UInt8] = []
    private var deadline: Scheduled<Void>?
    private var phase = Phase.reading
    private enum Phase { case reading, waiting, over }

    init(_ socket: ControlSocket) { self.socket = socket }

    func channelActive(context: ChannelHandlerContext) {
        socket.openCount += 1
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        deadline = context.eventLoop.scheduleTask(in: .seconds(AdminLimits.lineSeconds)) {
            let (handler, context) = bound.value
            if handler.phase == .reading { handler.end(.failed("no command came in time"), context) }
        }
        if socket.openCount > AdminLimits.connectionsMax {
            end(.failed("too many commands at once: try again"), context)
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard phase == .reading else { return }
        line.append(contentsOf: unwrapInboundIn(data).readableBytesView)
        guard let lineEnd = line.firstIndex(of: UInt8(ascii: "\n")) else {
            if line.count > AdminLimits.lineBytesMax { end(.failed("the line is too long"), context) }
            return
        }
        guard lineEnd <= AdminLimits.lineBytesMax else {
            return end(.failed("the line is too long"), context)
        }
        guard let command = AdminCommand(line: line[..<lineEnd].filter { $0 != UInt8(ascii: "\r") }) else {
            return end(
                .failed("a command is reload, or replay or purge with an uplink and numbers or all"), context)
        }
        phase = .waiting
        line = []
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        socket.take(command) { answer in
            let (handler, context) = bound.value
            handler.end(answer, context)
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        // Nothing more comes: without a whole line there is nothing to answer.
        if event as? ChannelEvent == .inputClosed, phase == .reading { context.close(promise: nil) }
    }

    func channelInactive(context: ChannelHandlerContext) {
        phase = .over
        deadline?.cancel()
        socket.openCount -= 1
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func end(_ answer: AdminAnswer, _ context: ChannelHandlerContext) {
        guard phase != .over else { return }
        phase = .over
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        context.writeAndFlush(NIOAny(ByteBuffer(bytes: answer.bytes))).whenComplete { _ in
            bound.value.close(promise: nil)
        }
    }
}

import NIOCore
import NIOWebSocket

/// Carries the bytes of MQTT in WebSocket frames (RFC 6455), as a client does.
///
/// What comes in binary frames is one stream of bytes, however it is cut into frames and messages
/// [MQTT5-6.0.0-2]; it is passed on as it comes, so a frame's length costs no memory. Each write becomes one
/// frame, masked (RFC 6455, 5.3). Stands over NIO's `WebSocketFrameEncoder`.
final class WebSocketCarrying: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = WebSocketFrame

    /// Bytes of frames that are not read yet.
    private var incoming = ByteBuffer()
    private var frame: IncomingFrame?
    /// The last fragment of a message is still to come.
    private var isMessageOpen = false
    private var isOver = false

    // MARK: In

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isOver else { return }
        var bytes = unwrapInboundIn(data)
        if incoming.readableBytes == 0 { incoming = bytes } else { incoming.writeBuffer(&bytes) }
        do throws(FrameFault) {
            while !isOver, try readOn(context) {}
        } catch {
            fail(error, context)
        }
        if incoming.readableBytes == 0 { incoming = ByteBuffer() }
    }

    /// Reads the next part of a frame; whether there may be more to read.
    private func readOn(_ context: ChannelHandlerContext) throws(FrameFault) -> Bool {
        guard var frame else {
            guard let next = try IncomingFrame(&incoming) else { return false }
            try begin(next)
            return true
        }
        if frame.isControl {
            guard let data = incoming.readSlice(length: frame.bytesLeft) else { return false }
            self.frame = nil
            control(frame, data, context)
            return true
        }
        let count = min(frame.bytesLeft, incoming.readableBytes)
        guard count > 0 || frame.bytesLeft == 0, let data = incoming.readSlice(length: count) else {
            return false
        }
        frame.bytesLeft -= count
        self.frame = frame.bytesLeft == 0 ? nil : frame
        if count > 0 { context.fireChannelRead(wrapInboundOut(data)) }
        return true
    }

    private func begin(_ next: IncomingFrame) throws(FrameFault) {
        switch next.opcode {
        case .binary, .continuation:
            guard isMessageOpen == (next.opcode == .continuation) else { throw .unexpectedFragment }
            isMessageOpen = !next.isFinal
        case .text:
            throw .text  // [MQTT5-6.0.0-1]
        case .ping, .pong, .connectionClose:
            guard next.isFinal, next.bytesLeft <= 125 else { throw .badControlFrame }
        default:
            throw .unknownOpcode
        }
        frame = next
    }

    private func control(_ frame: IncomingFrame, _ data: ByteBuffer, _ context: ChannelHandlerContext) {
        switch frame.opcode {
        case .ping:
            // A server that does not read is not owed an answer, which would only fill the memory.
            if context.channel.isWritable { write(.pong, data, context) }
        case .connectionClose:
            write(.connectionClose, data, context)
            isOver = true
            context.close(promise: nil)
        default:
            return
        }
    }

    private func fail(_ fault: FrameFault, _ context: ChannelHandlerContext) {
        isOver = true
        context.fireErrorCaught(
            LinkLossError(loss: .webSocketRefused("it broke a rule of its frames (\(fault))")))
        context.close(promise: nil)
    }

    // MARK: Out

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        let frame = WebSocketFrame(
            fin: true, opcode: .binary, maskKey: .random(), data: unwrapOutboundIn(data))
        context.write(wrapOutboundOut(frame), promise: promise)
    }

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        if !isOver {
            isOver = true
            var data = context.channel.allocator.buffer(capacity: 2)
            data.write(webSocketErrorCode: .normalClosure)
            write(.connectionClose, data, context)
        }
        context.close(mode: mode, promise: promise)
    }

    private func write(_ opcode: WebSocketOpcode, _ data: ByteBuffer, _ context: ChannelHandlerContext) {
        let frame = WebSocketFrame(fin: true, opcode: opcode, maskKey: .random(), data: data)
        context.writeAndFlush(wrapOutboundOut(frame), promise: nil)
    }
}

/// A rule of RFC 6455 that a server broke.
private enum FrameFault: Error {
    case masked
    case reservedBits
    case unknownOpcode
    case badControlFrame
    case unexpectedFragment
    case text
    case badLength
}

/// The head of a frame, and how much of its data is still to come.
private struct IncomingFrame {
    let opcode: WebSocketOpcode
    let isFinal: Bool
    var bytesLeft: Int

    var isControl: Bool { opcode == .ping || opcode == .pong || opcode == .connectionClose }

    /// Reads a head (RFC 6455, 5.2); nil, and nothing is read, when it is not all there.
    init?(_ bytes: inout ByteBuffer) throws(FrameFault) {
        let start = bytes.readerIndex
        guard let first: UInt8 = bytes.getInteger(at: start),
            let second: UInt8 = bytes.getInteger(at: start + 1)
        else { return nil }
        guard first & 0x70 == 0 else { throw .reservedBits }
        guard second & 0x80 == 0 else { throw .masked }
        guard let opcode = WebSocketOpcode(encodedWebSocketOpcode: first & 0x0F) else { throw .unknownOpcode }
        self.opcode = opcode
        isFinal = first & 0x80 != 0
        switch second {
        case 126:
            guard let length: UInt16 = bytes.getInteger(at: start + 2) else { return nil }
            bytesLeft = Int(length)
            bytes.moveReaderIndex(forwardBy: 4)
        case 127:
            guard let length: UInt64 = bytes.getInteger(at: start + 2) else { return nil }
            guard length <= UInt64(Int64.max) else { throw .badLength }
            bytesLeft = Int(length)
            bytes.moveReaderIndex(forwardBy: 10)
        default:
            bytesLeft = Int(second)
            bytes.moveReaderIndex(forwardBy: 2)
        }
    }
}

import MQTT
import NIOCore
import NIOSSL
import NIOTLS

/// One client's connection: the last handler of its channel's pipeline, and over plain MQTT the only one.
///
/// Holds no memory beyond itself and the decoder's remainder while the connection is idle.
final class Connection: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    enum Phase {
        case open
        /// A malformed packet came: nothing is read any more, the answer may still be sent.
        case refused
        /// Nothing is sent any more; what the client still sends is thrown away until it closes too, because
        /// closing a socket with unread bytes resets it and may take the last packet from the client.
        case closing
    }

    private let transport: Transport
    /// The listener's place in the plan.
    let place: Int
    private let framing: Framing
    /// 0 until the channel is active.
    private(set) var number: ConnectionNumber = 0
    #if !DEBUG
        @exclusivity(unchecked)  // Never open while anybody else is called.
    #endif
    private var phase = Phase.open
    /// Whether the delegate knows of it: with TLS not before the handshake.
    private(set) var isAnnounced = false
    private var handshakeDeadline = NIODeadline.distantFuture
    /// nil before the channel is active and once it is gone.
    private var context: ChannelHandlerContext?
    #if !DEBUG
        @exclusivity(unchecked)  // Never open while anybody else is called.
    #endif
    private var decoder: PacketDecoder

    private var isPaused = false
    /// NIO asked to read while reading was paused.
    private var isReadOwed = false

    /// Encoded in this cycle.
    #if !DEBUG
        @exclusivity(unchecked)  // Never open while anybody else is called.
    #endif
    private var unflushed: [UInt8] = []
    /// NIO has been given what is to be written, and has not come back. If that fails it reads what is left in the socket
    /// before it comes back: whoever had something written is inside a call then, and is told when the cycle ends.
    private var isWriting = false
    /// Bytes ever handed to the channel, as they go over the wire.
    private var flushedBytes: UInt64 = 0
    private(set) var isWritable = true
    private var toldWritable = true
    /// While not writable: what the client had taken when it last took something, and when that was.
    private var takenBytes: UInt64 = 0
    private var lastTaken = NIODeadline.distantPast
    /// When a closing connection is cut.
    private var closeDeadline = NIODeadline.distantFuture

    /// Whether the transport looks at it every second; the transport's own mark.
    var isWatched = false

    init(transport: Transport, place: Int) {
        self.transport = transport
        self.place = place
        self.framing = transport.plan.listeners[place].framing
        self.decoder = PacketDecoder(
            receiver: .server, version: nil,
            maximumPacketSize: transport.plan.listeners[place].maximumPacketSize)
    }

    /// Whether the socket is gone although packets that came in time are still held.
    var isGone: Bool { context == nil }

    // MARK: The channel comes and goes

    func channelActive(context: ChannelHandlerContext) {
        self.context = context
        number = transport.register(self)
        guard transport.plan.listeners[place].security != nil else { return announce(context, nil) }
        handshakeDeadline = .now() + Limits.handshakeTime
        transport.watch(self)
    }

    private func announce(_ context: ChannelHandlerContext, _ certificate: PeerCertificate?) {
        isAnnounced = true
        transport.delegate?.opened(
            number, listener: transport.plan.listeners[place].index, peer: context.remoteAddress,
            certificate: certificate)
        transport.endCycleSoon()
    }

    /// The TLS handshake is done: whoever is there has what its listener asks for.
    private func greeted(_ context: ChannelHandlerContext) {
        guard phase == .open, !isAnnounced else { return }
        do {
            let shown = try context.pipeline.syncOperations.handler(type: NIOSSLServerHandler.self)
                .peerCertificate
            let names = try shown.map { try PeerCertificate(der: $0.toDERBytes()) }
            // A certificate whose names cannot be read is nobody's.
            if let names, names == nil { return cut() }
            announce(context, names ?? nil)
        } catch {
            cut()
        }
    }

    func channelInactive(context: ChannelHandlerContext) { leave() }

    func handlerRemoved(context: ChannelHandlerContext) { leave() }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    /// What carries this connection ended it, and has said why to the client.
    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is FramingEnded {
            // Behind a write that failed NIO closes it, and what came before is still to be told.
            if !isWriting { close() }
            return
        }
        if case .handshakeCompleted? = event as? TLSUserEvent { greeted(context) }
        context.fireUserInboundEventTriggered(event)
    }

    private func leave() {
        guard context != nil else { return }
        context = nil
        unflushed = []
        transport.socketClosed(self)
        guard phase == .open, decoder.bufferedBytes > 0 else { return transport.finished(self) }
        // What came before the end of the stream is told before it. Nobody waits any more to be read: kept from its
        // end, a client that is gone would never be found gone by a host that does not read it.
        isPaused = false
        transport.resumeSoon(self)
    }

    // MARK: In

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard phase == .open else { return }
        let data = unwrapInboundIn(data)
        transport.bytesReceived &+= UInt64(data.readableBytes)
        data.withUnsafeReadableBytes { decoder.append($0) }
        if isWriting { return transport.resumeSoon(self) }
        deliver()
    }

    func channelReadComplete(context: ChannelHandlerContext) { transport.endCycleSoon() }

    func read(context: ChannelHandlerContext) {
        if isPaused {
            isReadOwed = true
        } else {
            context.read()
        }
    }

    /// Tells the delegate every whole packet, until it pauses or closes the connection.
    private func deliver() {
        do throws(MalformedPacket) {
            while phase == .open, !isPaused, let packet = try decoder.next() {
                transport.delegate?.received(number, packet)
            }
        } catch {
            phase = .refused
            transport.delegate?.malformed(number, error, in: decoder.version)
        }
    }

    /// The delegate wants this client to be read, or not. Packets held back are told when the cycle ends.
    func setReading(_ reads: Bool) {
        guard phase == .open, context != nil, isPaused == reads else { return }
        isPaused = !reads
        if reads { transport.resumeSoon(self) }
    }

    func setMaximumPacketSize(_ bytesMax: Int) {
        decoder.maximumPacketSize = min(decoder.maximumPacketSize, bytesMax)
    }

    /// Tells what was held while reading was paused, in order, and reads on.
    func resume() {
        guard phase == .open, !isPaused else { return }
        deliver()
        guard !isPaused else { return }
        if let context {
            readOn(context)
        } else {
            transport.finished(self)
        }
    }

    private func readOn(_ context: ChannelHandlerContext) {
        guard isReadOwed else { return }
        isReadOwed = false
        context.read()
    }

    // MARK: Out

    /// Adds an encoded packet to what the next `flush` writes.
    func send(_ packet: borrowing Packet) {
        guard phase != .closing, context != nil else { return }
        if !isWritable, waitingBytes > transport.plan.waitingBytesMax { return cut() }
        // A client that never got as far as naming a version is answered in the oldest that has reasons.
        if encode(packet, version: decoder.version ?? .v3_1_1) >= transport.plan.waitingBytesLow { flush() }
    }

    /// - Returns: how many bytes there are now.
    private func encode(_ packet: borrowing Packet, version: ProtocolVersion) -> Int {
        if unflushed.isEmpty {
            unflushed.reserveCapacity(Limits.writeBytesMin)
            transport.markUnflushed(self)
        }
        packet.encode(version: version, into: &unflushed)
        return unflushed.count
    }

    /// Hands everything sent so far to the socket, in one write.
    func flush() {
        guard let context, !unflushed.isEmpty else { return }
        let buffer = transport.allocator.buffer(bytes: unflushed)
        unflushed = []
        let count = buffer.readableBytes
        flushedBytes &+= UInt64(count + framing.overhead(of: count))
        transport.bytesSent &+= UInt64(count)
        isWriting = true
        context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
        isWriting = false
    }

    /// Bytes sent that the kernel has not taken yet.
    private var waitingBytes: Int { unflushed.count + bytesInChannel }

    private var bytesInChannel: Int {
        do {
            return try context?.channel.syncOptions?.getOption(.bufferedWritableBytes) ?? 0
        } catch {
            // The channel is closed: nothing waits in it.
            return 0
        }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        let now = context.channel.isWritable
        guard now != isWritable, phase != .closing else { return }
        isWritable = now
        if !now {
            takenBytes = flushedBytes &- UInt64(bytesInChannel)
            lastTaken = .now()
            transport.watch(self)
        }
        transport.tellWritabilitySoon(self)
    }

    /// Whether the delegate has not been told yet what `isWritable` says; from now on it has.
    func takeNewWritability() -> Bool {
        defer { toldWritable = isWritable }
        return phase != .closing && toldWritable != isWritable
    }

    // MARK: The end

    /// Closes once everything sent is written and the client has had time to read it.
    func close() {
        guard phase != .closing else { return }
        flush()
        phase = .closing
        guard let context else { return transport.finished(self) }
        isPaused = false
        closeDeadline = .now() + transport.plan.closeTimeout
        transport.watch(self)
        context.close(mode: .output, promise: nil)
        readOn(context)
    }

    /// Closes at once; what waits is lost.
    func cut() {
        if waitingBytes > 0 {
            transport.tellSoon(
                phase == .closing
                    ? .cutWhileClosing(number) : .cutForNotReading(number, waitingBytes: waitingBytes))
        }
        phase = .closing
        unflushed = []
        context?.close(promise: nil)
    }

    /// Cuts the connection when its time is up.
    ///
    /// - Returns: whether it has to be looked at again.
    func checkTime(_ now: NIODeadline) -> Bool {
        guard context != nil else { return false }
        if phase == .closing {
            if now >= closeDeadline { cut() }
            return now < closeDeadline
        }
        if !isAnnounced {
            if now >= handshakeDeadline { cut() }
            return now < handshakeDeadline
        }
        guard !isWritable else { return false }
        let taken = flushedBytes &- UInt64(bytesInChannel)
        if taken != takenBytes {
            takenBytes = taken
            lastTaken = now
        }
        guard now - lastTaken < transport.plan.stallTimeout else {
            cut()
            return false
        }
        return true
    }
}

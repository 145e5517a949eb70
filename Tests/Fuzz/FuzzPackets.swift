import MQTT

/// The memory a stream takes, in bytes, beyond what each byte received may take: the decoder's own.
private let ownBytesMax = 4096
/// What a received byte may take once decoded. Topic Filters of one byte, three on the wire, take the most: an
/// array each, and a place in a list that grows by doubling.
private let bytesPerByteMax = 32
/// How much is received at once while memory is measured.
private let readSize = 64

/// What libFuzzer calls with one input after the other. A broken rule stops the process, which makes libFuzzer
/// keep the input.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzPackets(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let stream = FuzzedStream(Array(UnsafeBufferPointer(start: start, count: count)))
    let allowed =
        ownBytesMax + bytesPerByteMax * min(stream.bytes.count, stream.maximumPacketSize + readSize)
    let peak = Memory.peak { decodeAndForget(stream) }
    if peak > allowed { fatalError("\(peak) bytes were allocated where \(allowed) are allowed") }
    if let rule = stream.brokenRule() { fatalError(rule) }
    return 0
}

/// As the gateway does: packets leave as they come.
private func decodeAndForget(_ stream: FuzzedStream) {
    var decoder = stream.decoder()
    var rest = stream.bytes[...]
    while !rest.isEmpty {
        rest.prefix(readSize).withUnsafeBytes { decoder.append($0) }
        rest = rest.dropFirst(readSize)
        do {
            while try decoder.next() != nil {}
        } catch {
            return
        }
    }
}

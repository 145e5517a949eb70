import Synchronization

/// A disk that remembers every write and every flush. The server of the file system writes to it, and others ask how far
/// it is.
final class RecordedDisk: Sendable {
    private struct State {
        var image: Image
        var recording: Recording
    }

    let byteCount: Int
    private let state: Mutex<State>

    init(_ image: Image) {
        byteCount = image.byteCount
        state = Mutex(State(image: image, recording: Recording(before: image)))
    }

    func read(at offset: Int, count: Int) -> [UInt8] {
        guard offset < byteCount else { return [] }
        return state.withLock { $0.image.read(offset..<min(byteCount, offset + count)) }
    }

    /// - Returns: false beyond its end, where nothing is written.
    func write(_ bytes: [UInt8], at offset: Int) -> Bool {
        guard offset >= 0, offset + bytes.count <= byteCount else { return false }
        state.withLock {
            $0.image.write(bytes[...], at: offset)
            $0.recording.events.append(.write(offset: offset, bytes: bytes))
        }
        return true
    }

    func flush() { state.withLock { $0.recording.events.append(.flush) } }

    /// Writes and flushes so far.
    var eventCount: Int { state.withLock { $0.recording.events.count } }

    /// Everything so far.
    var recording: Recording { state.withLock { $0.recording } }
}

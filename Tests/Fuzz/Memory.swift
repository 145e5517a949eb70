import Sanitizer

/// How much is allocated, by the address sanitizer's account. The process has one thread.
enum Memory {
    nonisolated(unsafe) private static var isMeasuring = false
    nonisolated(unsafe) private static var live = 0
    nonisolated(unsafe) private static var highest = 0
    private static let isInstalled =
        __sanitizer_install_malloc_and_free_hooks(
            { _, size in Memory.allocated(Int(size)) },
            { pointer in Memory.freed(pointer) }) != 0

    /// The most bytes that were allocated at once during `body` on top of what there was before.
    static func peak(during body: () -> Void) -> Int {
        guard isInstalled else { fatalError("the address sanitizer is not there") }
        live = 0
        highest = 0
        isMeasuring = true
        body()
        isMeasuring = false
        return highest
    }

    private static func allocated(_ size: Int) {
        guard isMeasuring else { return }
        live += size
        highest = max(highest, live)
    }

    private static func freed(_ pointer: UnsafeRawPointer?) {
        guard isMeasuring, let pointer else { return }
        live -= Int(__sanitizer_get_allocated_size(pointer))
    }
}

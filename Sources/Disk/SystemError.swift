import Glibc

/// An error of a system call.
package struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
    package let number: Int32

    package init(number: Int32) { self.number = number }

    /// In the system's words.
    package var description: String {
        guard let text = strerror(number) else { return "error \(number)" }
        return String(cString: text)
    }
}

/// Runs a system call that answers -1 for an error, again when a signal interrupted it.
@discardableResult
func call<T: SignedInteger>(_ body: () -> T) throws(SystemError) -> T {
    while true {
        let result = body()
        if result != -1 { return result }
        let number = errno
        if number != EINTR { throw SystemError(number: number) }
    }
}

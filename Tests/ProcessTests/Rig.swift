import Foundation
import Testing
import Workbench

/// What every test here starts from: a directory, and the shipped binary of this build.
final class Rig {
    let place: Workplace

    init() throws { place = try Workplace("tidegate-test") }

    deinit { place.remove() }

    static let executable = Gateway.executableOfThisBuild

    /// Whether the binary would refuse to keep its state here without `allow-volatile`.
    static let isVolatile: Bool = {
        guard let place = try? Workplace("tidegate-test") else { return true }
        defer { place.remove() }
        return place.isVolatile
    }()

    /// - Parameter home: where its state is, if not with everything else.
    func gateway(
        stateIn home: Workplace? = nil, uplinks: [Gateway.Uplink] = [], journal: [String] = [],
        settings: [String] = []
    ) throws -> Gateway {
        try Gateway(
            Self.executable, in: place, stateIn: home, uplinks: uplinks, journal: journal, settings: settings)
    }

    /// A cloud that runs, and a line to it that can be cut; the test ends both.
    func cloudBehindLink() throws -> (cloud: CloudBroker, link: CuttableLink) {
        let cloud = try CloudBroker(in: place)
        try cloud.start()
        return (cloud, try CuttableLink(to: cloud.port))
    }

    /// Runs the gateway's command to its end.
    func command(_ arguments: String..., seconds: Double = 20) throws -> (
        ending: ChildProcess.Ending?, text: String
    ) {
        try command(arguments: arguments, seconds: seconds)
    }

    func command(arguments: [String], seconds: Double = 20) throws -> (
        ending: ChildProcess.Ending?, text: String
    ) {
        try ChildProcess.run(Self.executable, arguments, seconds: seconds)
    }

    /// Starts one of the tools of the system, its standard output apart from its errors.
    func tool(_ path: String, _ arguments: [String]) throws -> Tool {
        let output = newFile()
        return Tool(
            process: try ChildProcess(path, arguments, log: newFile(), output: output), outputPath: output)
    }

    /// Runs one of the tools to its end and expects exit status 0.
    @discardableResult
    func run(
        _ path: String, _ arguments: [String], seconds: Double = 60,
        at location: SourceLocation = #_sourceLocation
    ) throws -> String {
        let tool = try tool(path, arguments)
        let ending = tool.process.ended(within: seconds)
        #expect(
            ending == .exited(0), "\(tool.output)\(tool.process.log)",
            sourceLocation: location)
        return tool.output
    }

    private func newFile() -> String { place.file("output-\(UInt32.random(in: 0 ... .max))") }
}

struct Tool {
    let process: ChildProcess
    let outputPath: String

    var output: String {
        String(decoding: FileManager.default.contents(atPath: outputPath) ?? Data(), as: UTF8.self)
    }
}

import CBuildInformation

/// What this software calls itself.
package enum Product {
    package static let version = "0.1.0"

    /// Commit it was built from; empty if the build was not told (`PDSERVE_COMMIT`).
    package static let commit = unsafe String(cString: build_commit())

    /// Version and commit, for people.
    package static let build =
        "\(version) (\(commit.isEmpty ? "development build" : "commit \(commit)"))"
}

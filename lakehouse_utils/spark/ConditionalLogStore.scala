package lakehouse

import java.io.IOException
import java.nio.charset.StandardCharsets.UTF_8
import java.nio.file.FileAlreadyExistsException
import java.util.Arrays

import scala.jdk.CollectionConverters._
import scala.util.{Failure, Success, Try}
import scala.util.control.NonFatal

import io.delta.storage.S3SingleDriverLogStore
import org.apache.hadoop.conf.Configuration
import org.apache.hadoop.fs.{FileSystem, Path}

/** Writes Delta's commits to S3 with PUT and If-None-Match, so that of two writers of one version the second is refused.
  *
  * Delta's own S3SingleDriverLogStore first checks whether the commit exists and then writes it. A commit that another
  * program makes in between is overwritten.
  */
class ConditionalLogStore(configuration: Configuration) extends S3SingleDriverLogStore(configuration) {

  override def write(
      path: Path,
      actions: java.util.Iterator[String],
      overwrite: java.lang.Boolean,
      hadoopConfiguration: Configuration
  ): Unit =
    if (overwrite) super.write(path, actions, overwrite, hadoopConfiguration)
    else {
      val files = path.getFileSystem(hadoopConfiguration)
      val commit = actions.asScala.map(_ + "\n").mkString.getBytes(UTF_8)
      try create(files, path, commit)
      catch {
        case error: IOException =>
          // If the answer to a successful request was lost, the request was sent again and refused. Then the existing
          // commit is this one. No two commits are equal, because each contains a random number.
          Try(read(files, path)) match {
            case Success(existing) if Arrays.equals(existing, commit) =>
            case Success(_)                                           => throw new FileAlreadyExistsException(path.toString)
            case Failure(_)                                           => throw error
          }
      }
    }

  private def create(files: FileSystem, path: Path, commit: Array[Byte]): Unit = {
    val file = files.createFile(path).overwrite(false).must("fs.option.create.conditional.overwrite", true).build()
    try file.write(commit)
    catch {
      case NonFatal(error) =>
        file.abort() // closing would commit the part that was written
        throw error
    }
    file.close()
  }

  private def read(files: FileSystem, path: Path): Array[Byte] = {
    val file = files.open(path)
    try file.readAllBytes()
    finally file.close()
  }
}

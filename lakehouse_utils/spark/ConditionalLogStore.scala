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

/** How Delta's commits come to S3: a commit is created by PUT with If-None-Match, so that of two writers one wins.
  *
  * Delta's own S3SingleDriverLogStore looks whether there is a commit of that number, then writes, and so overwrites
  * what another program committed in between.
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
          // The answer may have been lost, and the request sent again: then the commit is there, and is ours. No two
          // are the same, for each holds a number made by chance.
          Try(read(files, path)) match {
            case Success(there) if Arrays.equals(there, commit) =>
            case Success(_)                                     => throw new FileAlreadyExistsException(path.toString)
            case Failure(_)                                     => throw error
          }
      }
    }

  private def create(files: FileSystem, path: Path, commit: Array[Byte]): Unit = {
    val file = files.createFile(path).overwrite(false).must("fs.option.create.conditional.overwrite", true).build()
    try file.write(commit)
    catch {
      case NonFatal(error) =>
        file.abort() // closing would make the half of it a commit
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
